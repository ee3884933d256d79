//! The writing side: one thread, group commit.

use std::fs::{DirBuilder, OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, InterruptHandle, OpenFlags, Transaction, params};
use sentinel_core::alert::Alert;
use sentinel_core::bounds;
use sentinel_core::capability::{Blob, Request};
use sentinel_core::control::ControlEvent;
use sentinel_core::event::{Event, EventBody};
use sentinel_core::id::{Digest, PluginName};
use sentinel_core::lease::Span;
use sentinel_core::record::{Accepted, Append, Recovered};
use tokio::sync::oneshot;

use crate::checkpoint::Checkpointer;
use crate::lock::{FolderLock, open_own};
use crate::query::{self, StoredServing};
use crate::queue::{Lane, Queue, Refused};
use crate::{OpenError, WriteError, integrity, lease, retention, schema};

/// The file's name inside the data folder.
pub(crate) const FILE: &str = "journal.sqlite";

/// How many deliveries may wait for the writer before intake is told that it is full.
const QUEUE: usize = 8192;

/// How many rows one transaction takes at most, so that one huge burst does not keep
/// everybody else waiting for its `fsync`.
const GROUP_ROWS: usize = 8_000;

/// The same once something urgent is among them: a burst goes on beside it, and does not
/// keep it waiting.
const URGENT_ROWS: usize = 500;

/// How many deliveries that could not be understood are kept.
const DEAD_LETTERS: i64 = 1000;

/// How much is kept of a delivery that could not be understood.
pub const DEAD_LETTER_BYTES: usize = 64 << 10;

/// How much is kept of what is wrong with it, in bytes.
const DEAD_LETTER_ERROR: usize = 4 << 10;

/// How many alerts one operation ends whose leases have run out.
const LAPSES: u32 = 500;

/// How many alerts one operation looks at to forget them.
const FORGOTTEN: u32 = 1000;

/// A delivery that could not be understood.
#[derive(Debug)]
pub struct DeadLetter {
    /// When it came.
    pub at: Timestamp,
    /// Which door it came through.
    pub source: String,
    /// What is wrong with it; the first 4 KiB are kept.
    pub error: String,
    /// Its body; the first 64 KiB are kept.
    pub body: Vec<u8>,
}

/// A plugin version that is about to serve.
#[derive(Debug)]
pub struct PluginRecord {
    /// Its digest.
    pub digest: Digest,
    /// The name that it says it has.
    pub name: PluginName,
    /// The version that it says it has.
    pub version: String,
    /// When it was first served.
    pub at: Timestamp,
    /// The component as it was in its file.
    pub wasm: Vec<u8>,
}

type Reply<T> = oneshot::Sender<Result<T, WriteError>>;

/// Told after each commit how long it took and how many operations it held.
type CommitObserver = Box<dyn Fn(Duration, usize) + Send>;

/// Where an accepted alert stands in the inbox, and whether it had been accepted before.
type Place = (u64, bool);

/// What became of alerts that were handed in.
#[derive(Default)]
struct Places {
    // Each with the alert that it turned out to be, if that is another.
    places: Vec<(Place, Option<Alert>)>,
    // What had run out when it was told of again.
    lapsed: Vec<Accepted>,
}

/// Alerts as the journal writes them. Made by whoever hands them in: the one thread that
/// writes is what limits intake, and putting things into words is most of the work.
struct Texts {
    buffer: String,
    // For each alert where its body ends and where its start does; each begins where the
    // one before it ends.
    ends: Vec<(usize, usize)>,
}

impl Texts {
    fn new(alerts: &[Alert]) -> Result<Self, WriteError> {
        let failed = |error: &dyn std::fmt::Display| WriteError::Failed(error.to_string());
        let mut buffer = Vec::with_capacity(alerts.len() << 10);
        let mut ends = Vec::with_capacity(alerts.len());
        for alert in alerts {
            serde_json::to_writer(&mut buffer, alert).map_err(|error| failed(&error))?;
            let body = buffer.len();
            write!(buffer, "{}", alert.starts_at).map_err(|error| failed(&error))?;
            ends.push((body, buffer.len()));
        }
        let buffer = String::from_utf8(buffer).map_err(|error| failed(&error))?;
        Ok(Self { buffer, ends })
    }

    /// Each alert's body and start.
    fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut begin = 0;
        self.ends.iter().filter_map(move |(body, end)| {
            let pair = (
                self.buffer.get(begin..*body)?,
                self.buffer.get(*body..*end)?,
            );
            begin = *end;
            Some(pair)
        })
    }
}

enum Op {
    Accept {
        alerts: Arc<Vec<Alert>>,
        texts: Texts,
        // From when until when those hold that live by lease.
        spans: Vec<Option<Span>>,
        at: Timestamp,
        reply: Reply<Places>,
    },
    Lapse {
        at: Timestamp,
        reply: Reply<Vec<Accepted>>,
    },
    FoundLeases {
        at: Timestamp,
        reply: Reply<()>,
    },
    Forget {
        before: Timestamp,
        from: i64,
        reply: Reply<(Option<i64>, usize)>,
    },
    Append {
        append: Arc<Append>,
        reply: Reply<()>,
    },
    DeadLetter {
        letter: DeadLetter,
        reply: Reply<()>,
    },
    Plugin {
        record: PluginRecord,
        reply: Reply<()>,
    },
    Serving {
        at: Timestamp,
        serving: StoredServing,
        events: Vec<ControlEvent>,
        reply: Reply<()>,
    },
    Probe {
        reply: Reply<()>,
    },
}

/// The outcome of one operation, kept until the commit decides whether it holds.
enum Outcome {
    Accepted(Places),
    Lapsed(Vec<Accepted>),
    Forgotten((Option<i64>, usize)),
    Written,
}

impl Op {
    fn rows(&self) -> usize {
        match self {
            Self::Accept { alerts, .. } => alerts.len(),
            Self::Append { append, .. } => {
                append.events.len() + append.incidents.len() + append.done.len()
            }
            // What they take is bounded, and they are to hold up nobody.
            Self::Lapse { .. } => LAPSES as usize,
            Self::Forget { .. } => FORGOTTEN as usize,
            Self::DeadLetter { .. }
            | Self::FoundLeases { .. }
            | Self::Plugin { .. }
            | Self::Serving { .. }
            | Self::Probe { .. } => 1,
        }
    }

    fn run(&self, transaction: &Transaction<'_>) -> rusqlite::Result<Outcome> {
        match self {
            Self::Accept {
                alerts,
                texts,
                spans,
                at,
                ..
            } => accept(transaction, alerts, texts, spans, *at).map(Outcome::Accepted),
            Self::Lapse { at, .. } => lease::expire(transaction, *at, LAPSES).map(Outcome::Lapsed),
            Self::FoundLeases { at, .. } => {
                lease::found(transaction, *at).map(|()| Outcome::Written)
            }
            Self::Forget { before, from, .. } => {
                retention::forget(transaction, *before, *from, FORGOTTEN.into())
                    .map(Outcome::Forgotten)
            }
            Self::Append { append: batch, .. } => {
                append(transaction, batch).map(|()| Outcome::Written)
            }
            Self::DeadLetter { letter, .. } => {
                dead_letter(transaction, letter).map(|()| Outcome::Written)
            }
            Self::Plugin { record, .. } => plugin(transaction, record).map(|()| Outcome::Written),
            Self::Serving {
                at,
                serving,
                events,
                ..
            } => store_serving(transaction, *at, serving)
                .and_then(|()| controls(transaction, events))
                .map(|()| Outcome::Written),
            // The same value again is a write like any other, down to the disk.
            Self::Probe { .. } => transaction
                .pragma_update(None, "user_version", schema::newest())
                .map(|()| Outcome::Written),
        }
    }

    /// Answers the caller. Nobody may be waiting any more, which is no error: what was
    /// committed stays so.
    fn answer(self, result: Result<Outcome, WriteError>) {
        let gone = match self {
            Self::Accept { reply, alerts, .. } => {
                // Before the answer, so that they are the caller's alone again.
                drop(alerts);
                reply
                    .send(result.map(|outcome| match outcome {
                        Outcome::Accepted(places) => places,
                        _ => Places::default(),
                    }))
                    .is_err()
            }
            Self::Lapse { reply, .. } => reply
                .send(result.map(|outcome| match outcome {
                    Outcome::Lapsed(ended) => ended,
                    _ => Vec::new(),
                }))
                .is_err(),
            Self::Forget { reply, .. } => reply
                .send(result.map(|outcome| match outcome {
                    Outcome::Forgotten(forgotten) => forgotten,
                    _ => (None, 0),
                }))
                .is_err(),
            Self::Append { reply, .. }
            | Self::DeadLetter { reply, .. }
            | Self::FoundLeases { reply, .. }
            | Self::Plugin { reply, .. }
            | Self::Serving { reply, .. }
            | Self::Probe { reply } => reply.send(result.map(|_| ())).is_err(),
        };
        if gone {
            tracing::trace!("a caller of the journal went away before its answer");
        }
    }
}

/// Whether somebody may be waiting for what comes of one of them.
fn lane(alerts: &[Alert]) -> Lane {
    if alerts.iter().any(Alert::is_urgent) {
        Lane::Urgent
    } else {
        Lane::Bulk
    }
}

/// The journal, open for writing. Closing it, or dropping it, waits for everything that
/// was handed in.
pub struct Journal {
    queue: Arc<Queue<Op>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    folder: PathBuf,
    // Whether the last commit held.
    healthy: Arc<AtomicBool>,
    // What looking the file through has found.
    damage: Arc<OnceLock<String>>,
    // Ends that early.
    check: Option<InterruptHandle>,
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal")
            .field("folder", &self.folder)
            .finish_non_exhaustive()
    }
}

impl Journal {
    /// Opens the journal in `folder`, making both if they are missing, takes the
    /// folder's lock, and reads what an earlier daemon left. `observe` is told how
    /// long each commit took.
    pub fn open(
        folder: &Path,
        observe: impl Fn(Duration, usize) + Send + 'static,
    ) -> Result<(Self, Recovered), OpenError> {
        // What is in it is for the daemon alone: labels, the output of playbooks.
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(|source| OpenError::Folder {
            path: folder.to_owned(),
            source,
        })?;
        let lock = FolderLock::take(folder)?;
        let file = folder.join(FILE);
        private(&file)?;
        let (mut connection, recovered) = read(&file).map_err(|error| match error {
            OpenError::Sqlite(error) if integrity::is_damage(&error) => OpenError::Damaged {
                path: file.clone(),
                detail: error.to_string(),
            },
            error => error,
        })?;
        let damage = Arc::new(OnceLock::new());
        let check = check_beside(&file, &damage)?;
        let checkpointer = Checkpointer::start(&file, &mut connection)?;
        let queue = Arc::new(Queue::new());
        let waiting = queue.clone();
        let healthy = Arc::new(AtomicBool::new(true));
        let writer_healthy = healthy.clone();
        let observe: CommitObserver = Box::new(observe);
        let thread = std::thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || {
                Writer {
                    queue: waiting,
                    connection,
                    checkpointer: Some(checkpointer),
                    observe,
                    healthy: writer_healthy,
                    _lock: lock,
                }
                .serve();
            })
            .map_err(|source| OpenError::Folder {
                path: folder.to_owned(),
                source,
            })?;
        let journal = Self {
            queue,
            thread: Mutex::new(Some(thread)),
            folder: folder.to_owned(),
            healthy,
            damage,
            check,
        };
        Ok((journal, recovered))
    }

    /// Commits alerts, and says where they stand in the inbox. Never waits for a
    /// place in the queue: a sender that is told `Full` comes again.
    pub async fn accept(
        &self,
        alerts: Vec<Alert>,
        at: Timestamp,
    ) -> Result<Vec<Accepted>, WriteError> {
        self.accept_leased(alerts, Vec::new(), at).await
    }

    /// As [`Self::accept`]; of alerts that live by lease `spans` says from when until when
    /// they hold. Each is accepted as the alert that it is by [`sentinel_core::lease`], behind
    /// the ends of those that had run out when they were told of again.
    pub async fn accept_leased(
        &self,
        alerts: Vec<Alert>,
        spans: Vec<Option<Span>>,
        at: Timestamp,
    ) -> Result<Vec<Accepted>, WriteError> {
        let (reply, answer) = oneshot::channel();
        let alerts = Arc::new(alerts);
        let op = Op::Accept {
            texts: Texts::new(&alerts)?,
            alerts: alerts.clone(),
            spans,
            at,
            reply,
        };
        self.queue
            .push(lane(&alerts), QUEUE, op)
            .map_err(WriteError::from)?;
        let Places { places, lapsed } = answer.await.unwrap_or(Err(WriteError::Closed))?;
        let accepted = Arc::unwrap_or_clone(alerts).into_iter().zip(places).map(
            |(alert, ((seq, repeat), known))| Accepted {
                seq,
                alert: Arc::new(known.unwrap_or(alert)),
                received_at: at,
                repeat,
            },
        );
        Ok(lapsed.into_iter().chain(accepted).collect())
    }

    /// Ends alerts whose leases have run out at `at`: some hundreds at the most, so ask again
    /// until there are none.
    pub async fn lapse(&self, at: Timestamp) -> Result<Vec<Accepted>, WriteError> {
        self.write(Lane::Urgent, |reply| Op::Lapse { at, reply })
            .await
    }

    /// Gives senders the time to renew leases that they could not renew while no daemon
    /// listened; before anything is accepted.
    pub async fn found_leases(&self, at: Timestamp) -> Result<(), WriteError> {
        self.write(Lane::Urgent, |reply| Op::FoundLeases { at, reply })
            .await
    }

    /// Looks at some alerts from the number `from` on, and forgets those of them that led to
    /// no incident and were last told of before `before`: the number to go on from, and how
    /// many were forgotten.
    pub async fn forget(
        &self,
        before: Timestamp,
        from: i64,
    ) -> Result<(Option<i64>, usize), WriteError> {
        self.write(Lane::Bulk, |reply| Op::Forget {
            before,
            from,
            reply,
        })
        .await
    }

    /// Commits what the engine made of something. Shared, so that a caller that must
    /// get it written can try again.
    pub async fn append(&self, append: Arc<Append>) -> Result<(), WriteError> {
        let Append {
            events,
            incidents,
            episodes,
            controls,
            done: _,
        } = &*append;
        // That alerts led to nothing is no news that anybody waits for.
        let idle =
            events.is_empty() && incidents.is_empty() && episodes.is_empty() && controls.is_empty();
        let lane = if idle { Lane::Bulk } else { Lane::Urgent };
        self.write(lane, |reply| Op::Append { append, reply }).await
    }

    /// Keeps a delivery that could not be understood.
    pub async fn dead_letter(&self, letter: DeadLetter) -> Result<(), WriteError> {
        self.write(Lane::Bulk, |reply| Op::DeadLetter { letter, reply })
            .await
    }

    /// Keeps a plugin version, so that what acted can be looked at and run again.
    pub async fn keep_plugin(&self, record: PluginRecord) -> Result<(), WriteError> {
        self.write(Lane::Urgent, |reply| Op::Plugin { record, reply })
            .await
    }

    /// Notes the set of plugins and policies that serves from now on, and what changed to
    /// it.
    pub async fn keep_serving(
        &self,
        at: Timestamp,
        serving: StoredServing,
        events: Vec<ControlEvent>,
    ) -> Result<(), WriteError> {
        self.write(Lane::Urgent, |reply| Op::Serving {
            at,
            serving,
            events,
            reply,
        })
        .await
    }

    /// Whether the last write held.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.healthy.load(Ordering::Relaxed) && !self.is_closed()
    }

    /// What is wrong with the file, if anything was found: its pages are looked through
    /// once after each start.
    #[must_use]
    pub fn damage(&self) -> Option<&str> {
        self.damage.get().map(String::as_str)
    }

    /// Whether it takes nothing any more: it was closed, or its thread is gone.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.queue.is_closed()
    }

    /// Writes something that changes nothing, to find out whether it can be written.
    pub async fn probe(&self) -> Result<(), WriteError> {
        self.write(Lane::Urgent, |reply| Op::Probe { reply }).await
    }

    /// Takes nothing more, and waits until what was handed in is committed. Blocks.
    pub fn close(&self) {
        if let Some(check) = &self.check {
            check.interrupt();
        }
        self.queue.close();
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the journal's thread ended in a panic");
        }
    }

    /// Never refused for want of room: there are no more of these than runs and people.
    async fn write<T>(&self, lane: Lane, op: impl FnOnce(Reply<T>) -> Op) -> Result<T, WriteError> {
        let (reply, answer) = oneshot::channel();
        self.queue.push(lane, usize::MAX, op(reply))?;
        answer.await.unwrap_or(Err(WriteError::Closed))
    }
}

/// Opens the file and reads what is in it, unless it is damaged.
fn read(file: &Path) -> Result<(Connection, Recovered), OpenError> {
    integrity::check_log(file)?;
    let mut connection = Connection::open(file)?;
    // A file that is refused stays as it is, its log too.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    schema::prepare(&mut connection)?;
    if !is_large(file)
        && let Some(detail) = integrity::check_pages(&connection)
    {
        return Err(OpenError::Damaged {
            path: file.to_owned(),
            detail,
        });
    }
    let recovered = query::recover(&connection)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
    Ok((connection, recovered))
}

fn is_large(file: &Path) -> bool {
    std::fs::metadata(file).is_ok_and(|file| file.len() > integrity::SMALL)
}

/// Looks a large file through beside the work: a start must not wait for that.
fn check_beside(
    file: &Path,
    damage: &Arc<OnceLock<String>>,
) -> Result<Option<InterruptHandle>, OpenError> {
    if !is_large(file) {
        return Ok(None);
    }
    let connection = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let interrupt = connection.get_interrupt_handle();
    let (path, damage) = (file.to_owned(), damage.clone());
    std::thread::Builder::new()
        .name("journal-check".to_owned())
        .spawn(move || {
            if let Some(detail) = integrity::check_pages(&connection) {
                tracing::error!(
                    file = %path.display(),
                    detail,
                    "the journal is damaged: stop the daemon, keep a copy, and mend it or begin a new one"
                );
                damage.get_or_init(|| detail);
            }
        })
        .map_err(|source| OpenError::Folder {
            path: file.to_owned(),
            source,
        })?;
    Ok(Some(interrupt))
}

impl From<Refused> for WriteError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Full => Self::Full,
            Refused::Closed => Self::Closed,
        }
    }
}

/// Sees to it that the file is there and nobody else can read it; SQLite gives the files
/// beside it the same permissions.
fn private(file: &Path) -> Result<(), OpenError> {
    for beside in ["-wal", "-shm"] {
        let mut name = file.as_os_str().to_owned();
        name.push(beside);
        let beside = Path::new(&name);
        // SQLite makes those that are missing.
        if beside.symlink_metadata().is_ok() {
            drop(open_own(beside, OpenOptions::new().append(true))?);
        }
    }
    open_own(file, OpenOptions::new().append(true))?
        .set_permissions(Permissions::from_mode(0o600))
        .map_err(|source| OpenError::Folder {
            path: file.to_owned(),
            source,
        })
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.close();
    }
}

struct Writer {
    queue: Arc<Queue<Op>>,
    connection: Connection,
    checkpointer: Option<Checkpointer>,
    observe: CommitObserver,
    healthy: Arc<AtomicBool>,
    _lock: FolderLock,
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Also when it ends in a panic: whoever waits is told that nobody writes any more.
        self.queue.abandon();
    }
}

impl Writer {
    fn serve(mut self) {
        while let Some((lane, first)) = self.queue.wait() {
            self.commit(Group::new(lane, first));
        }
        self.checkpointer.take();
        // The next start then finds a small file and no log to read back.
        if let Err(error) = self
            .connection
            .pragma_update(None, "wal_checkpoint", "TRUNCATE")
        {
            tracing::debug!(%error, "the journal's log could not be folded in on closing");
        }
    }

    fn commit(&mut self, mut group: Group) {
        let begun = Instant::now();
        match self.attempt(&mut group) {
            Ok(outcomes) => {
                self.healthy.store(true, Ordering::Relaxed);
                (self.observe)(begun.elapsed(), group.ops.len());
                for (op, outcome) in group.ops.into_iter().zip(outcomes) {
                    op.answer(Ok(outcome));
                }
            }
            // One bad operation must not take the others with it.
            Err(error) if group.ops.len() > 1 => {
                let count = group.ops.len();
                tracing::debug!(%error, count, "a group commit failed; trying one by one");
                for op in group.ops {
                    self.commit(Group::alone(op));
                }
            }
            Err(error) => {
                self.healthy.store(false, Ordering::Relaxed);
                for op in group.ops {
                    op.answer(Err(WriteError::Failed(error.to_string())));
                }
            }
        }
    }

    /// One transaction: what the group holds, and what waits or comes while it is being
    /// written.
    fn attempt(&mut self, group: &mut Group) -> rusqlite::Result<Vec<Outcome>> {
        let transaction = self
            .connection
            .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        let mut outcomes = Vec::new();
        for op in &group.ops {
            outcomes.push(op.run(&transaction)?);
        }
        while let Some(op) = group.next(&self.queue) {
            let outcome = op.run(&transaction);
            group.ops.push(op);
            outcomes.push(outcome?);
        }
        transaction.commit()?;
        Ok(outcomes)
    }
}

/// What is committed as one.
struct Group {
    ops: Vec<Op>,
    rows: usize,
    // How many rows it may have. What is urgent closes it early.
    limit: usize,
}

impl Group {
    fn new(lane: Lane, first: Op) -> Self {
        let mut group = Self {
            rows: first.rows(),
            ops: vec![first],
            limit: GROUP_ROWS,
        };
        group.admit(lane);
        group
    }

    /// An operation that goes without others.
    fn alone(op: Op) -> Self {
        Self {
            ops: vec![op],
            rows: 0,
            limit: 0,
        }
    }

    fn admit(&mut self, lane: Lane) {
        if lane == Lane::Urgent {
            self.limit = self.limit.min(URGENT_ROWS);
        }
    }

    /// What else goes into it: whatever is urgent, and of the rest what still fits.
    fn next(&mut self, queue: &Queue<Op>) -> Option<Op> {
        let (lane, op) = if self.limit == 0 || self.rows >= GROUP_ROWS {
            return None;
        } else if self.rows >= self.limit {
            (Lane::Urgent, queue.take_urgent()?)
        } else {
            queue.take()?
        };
        self.rows += op.rows();
        self.admit(lane);
        Some(op)
    }
}

pub(crate) fn json<T: serde::Serialize>(value: &T) -> rusqlite::Result<String> {
    serde_json::to_string(value)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

fn accept(
    transaction: &Transaction<'_>,
    alerts: &[Alert],
    texts: &Texts,
    spans: &[Option<Span>],
    at: Timestamp,
) -> rusqlite::Result<Places> {
    let mut accepted = Places::default();
    let spans = spans.iter().copied().chain(std::iter::repeat(None));
    for ((alert, (body, starts_at)), span) in alerts.iter().zip(texts.iter()).zip(spans) {
        let known = match span {
            Some(span) => {
                let (known, lapsed) = lease::heard(transaction, alert, span, at)?;
                accepted.lapsed.extend(lapsed);
                known
            }
            None => None,
        };
        let place = match &known {
            Some(known) => enqueue(transaction, known, &json(known)?, at)?,
            None => row(transaction, alert, body, starts_at, at)?,
        };
        accepted.places.push((place, known));
    }
    Ok(accepted)
}

/// Notes an alert, and puts it into the inbox.
pub(crate) fn enqueue(
    transaction: &Transaction<'_>,
    alert: &Alert,
    body: &str,
    at: Timestamp,
) -> rusqlite::Result<Place> {
    row(transaction, alert, body, &alert.starts_at.to_string(), at)
}

fn row(
    transaction: &Transaction<'_>,
    alert: &Alert,
    body: &str,
    starts_at: &str,
    at: Timestamp,
) -> rusqlite::Result<Place> {
    let mut upsert = transaction.prepare_cached(
        "INSERT INTO alerts
             (source, fingerprint, starts_at, status, body, received_at, last_seen_at, deliveries)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6, 1)
         ON CONFLICT (source, fingerprint, starts_at, status) DO UPDATE
             SET body = excluded.body, last_seen_at = excluded.last_seen_at,
                 deliveries = deliveries + 1
         RETURNING id, deliveries",
    )?;
    let mut enqueue = transaction
        .prepare_cached("INSERT INTO inbox (alert_id, received_at, repeat) VALUES (?1, ?2, ?3)")?;
    let (id, deliveries): (i64, i64) = upsert.query_row(
        params![
            alert.source,
            alert.fingerprint.0,
            starts_at,
            alert.status.as_str(),
            body,
            at.as_microsecond(),
        ],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    let repeat = deliveries > 1;
    let seq = enqueue.insert(params![id, at.as_microsecond(), repeat])?;
    Ok((u64::try_from(seq).unwrap_or_default(), repeat))
}

/// Numbers as ranges of those that follow one another: what comes in one delivery is most
/// often dealt with as one.
fn ranges(numbers: &[u64]) -> impl Iterator<Item = (u64, u64)> {
    numbers
        .chunk_by(|a, b| a.checked_add(1) == Some(*b))
        .filter_map(|run| Some((*run.first()?, *run.last()?)))
}

fn append(transaction: &Transaction<'_>, append: &Append) -> rusqlite::Result<()> {
    let mut event_row = transaction
        .prepare_cached("INSERT INTO events (incident, at, kind, body) VALUES (?1, ?2, ?3, ?4)")?;
    for event in &append.events {
        event_row.execute(params![
            query::number(event.incident),
            event.at.as_microsecond(),
            event.body.kind(),
            json(event)?,
        ])?;
    }
    let mut incident_row = transaction.prepare_cached(
        "INSERT INTO incidents
             (id, policy, target, alert, state, opened_at, ended_at, reason, last_run_at,
              again, owes)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
         ON CONFLICT (id) DO UPDATE
             SET state = excluded.state, ended_at = excluded.ended_at,
                 reason = excluded.reason, last_run_at = excluded.last_run_at,
                 again = excluded.again, owes = excluded.owes",
    )?;
    for row in &append.incidents {
        incident_row.execute(params![
            query::number(row.id),
            row.policy,
            row.target,
            row.alert,
            row.state,
            row.opened_at.as_microsecond(),
            row.ended_at.map(Timestamp::as_microsecond),
            row.reason,
            row.last_run_at.map(Timestamp::as_microsecond),
            row.again.map(query::again),
            row.owes,
        ])?;
    }
    let mut episode_row = transaction.prepare_cached(
        "INSERT OR IGNORE INTO episodes (source, fingerprint, starts_at, incident)
         VALUES (?1, ?2, ?3, ?4)",
    )?;
    for (episode, incident) in &append.episodes {
        episode_row.execute(params![
            episode.source,
            episode.fingerprint.0,
            episode.starts_at.to_string(),
            query::number(*incident),
        ])?;
    }
    follow(transaction, &append.events)?;
    controls(transaction, &append.controls)?;
    let mut done = transaction.prepare_cached("DELETE FROM inbox WHERE seq BETWEEN ?1 AND ?2")?;
    let number = |seq: u64| i64::try_from(seq).unwrap_or(i64::MAX);
    for (first, last) in ranges(&append.done) {
        done.execute(params![number(first), number(last)])?;
    }
    Ok(())
}

/// Keeps apart what events say of runs, of effects and of what plugins remember.
fn follow(transaction: &Transaction<'_>, events: &[Event]) -> rusqlite::Result<()> {
    let mut run_row = transaction.prepare_cached(
        "INSERT OR REPLACE INTO runs (incident, number, at, policy, plugin, mode)
         SELECT ?1, ?2, ?3, policy, ?4, ?5 FROM incidents WHERE id = ?1",
    )?;
    let mut effect_row = transaction.prepare_cached(
        // What it is counted on, as `on_account_of` has it.
        "INSERT INTO effects (at, incident, run, call, target, action)
         SELECT ?1, ?2, ?3, ?4,
                CASE WHEN ?6 IS NULL
                       OR target LIKE 'docker://%' AND substr(target, -length(?7)) = ?7
                     THEN target ELSE 'docker://' || ?6 || ?7 END,
                ?5 FROM incidents WHERE id = ?2",
    )?;
    for event in events {
        let (incident, at) = (query::number(event.incident), event.at.as_microsecond());
        match &event.body {
            EventBody::RunStarted {
                run,
                step,
                plugin,
                mode,
                ..
            } if *step > 0 => {
                run_row.execute(params![
                    incident,
                    run.number,
                    at,
                    plugin.as_str(),
                    mode.as_str()
                ])?;
            }
            EventBody::EffectBegan {
                run,
                call,
                request,
                on,
            } => {
                let container = match (request, on) {
                    (Request::Docker(asked), Some(on)) => {
                        Some((asked.host.as_str(), format!("/{}", on.name)))
                    }
                    _ => None,
                };
                let (host, name) = container.unzip();
                effect_row.execute(params![
                    at,
                    incident,
                    run.number,
                    call,
                    request.name(),
                    host,
                    name
                ])?;
            }
            EventBody::Remembered {
                plugin, changes, ..
            } => {
                for (key, value) in changes {
                    remember(transaction, incident, plugin, key, value.as_ref())?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Keeps a value of a plugin's memory under the incident's policy, or forgets it.
fn remember(
    transaction: &Transaction<'_>,
    incident: i64,
    plugin: &PluginName,
    key: &str,
    value: Option<&Blob>,
) -> rusqlite::Result<()> {
    match value {
        Some(value) => transaction
            .prepare_cached(
                "INSERT OR REPLACE INTO memory (policy, plugin, key, value)
                 SELECT policy, ?2, ?3, ?4 FROM incidents WHERE id = ?1",
            )?
            .execute(params![incident, plugin.as_str(), key, value.0])?,
        None => transaction
            .prepare_cached(
                "DELETE FROM memory WHERE plugin = ?2 AND key = ?3
                     AND policy = (SELECT policy FROM incidents WHERE id = ?1)",
            )?
            .execute(params![incident, plugin.as_str(), key])?,
    };
    Ok(())
}

fn controls(transaction: &Transaction<'_>, events: &[ControlEvent]) -> rusqlite::Result<()> {
    let mut row = transaction.prepare_cached("INSERT INTO controls (at, body) VALUES (?1, ?2)")?;
    for event in events {
        row.execute(params![event.at.as_microsecond(), json(event)?])?;
    }
    Ok(())
}

fn dead_letter(transaction: &Transaction<'_>, letter: &DeadLetter) -> rusqlite::Result<()> {
    let head = letter.body.get(..DEAD_LETTER_BYTES).unwrap_or(&letter.body);
    // However much there is to say of it.
    let mut error = letter.error.clone();
    bounds::cut(&mut error, DEAD_LETTER_ERROR);
    transaction.execute(
        "INSERT INTO dead_letters (at, source, error, body) VALUES (?1, ?2, ?3, ?4)",
        params![letter.at.as_microsecond(), letter.source, error, head],
    )?;
    let newest = transaction.last_insert_rowid();
    transaction.execute(
        "DELETE FROM dead_letters WHERE seq <= ?1",
        params![newest.saturating_sub(DEAD_LETTERS)],
    )?;
    Ok(())
}

fn plugin(transaction: &Transaction<'_>, record: &PluginRecord) -> rusqlite::Result<()> {
    transaction.execute(
        "INSERT OR IGNORE INTO plugins (digest, name, version, first_seen_at, wasm)
         VALUES (?1, ?2, ?3, ?4, ?5)",
        params![
            record.digest.to_string(),
            record.name.as_str(),
            record.version,
            record.at.as_microsecond(),
            record.wasm,
        ],
    )?;
    Ok(())
}

fn store_serving(
    transaction: &Transaction<'_>,
    at: Timestamp,
    serving: &StoredServing,
) -> rusqlite::Result<()> {
    transaction.execute(
        "INSERT INTO serving (id, at, body) VALUES (1, ?1, ?2)
         ON CONFLICT (id) DO UPDATE SET at = excluded.at, body = excluded.body",
        params![at.as_microsecond(), json(serving)?],
    )?;
    Ok(())
}

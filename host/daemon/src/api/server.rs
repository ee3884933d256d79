//! Accepts connections, and bounds them: how many there are, how long a header takes to arrive, how long nothing moves.
//!
//! Whoever only keeps a connection open loses it when another is needed, those that deliver alerts last: strangers cannot
//! lock Alertmanager out by being there.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::process::{Resource, getrlimit};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::edge::Edge;
use super::held::held;
use crate::telemetry::metrics::Metrics;

/// How long a request's headers may take to arrive, and how long a connection may wait for its next request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// How large they may be together.
const HEADERS: usize = 32 << 10;

/// How many there may be.
const HEADER_COUNT: usize = 100;

/// How much of a connection is read ahead, and written ahead, at the most.
const BUFFER: usize = 128 << 10;

/// How long nothing may move on a connection whose answer waits to be taken.
const STALLED: Duration = Duration::from_secs(30);

/// How long an answer may take to be taken altogether.
const TAKEN: Duration = Duration::from_mins(5);

/// How long nothing has to have moved on a connection before it is given up for another one although its request has
/// not been answered.
const STILL: Duration = Duration::from_secs(5);

/// How often that is looked at.
const LOOK: Duration = Duration::from_secs(5);

/// How long open connections get to finish their request when the daemon stops.
const DRAIN: Duration = Duration::from_secs(5);

/// Descriptors that are for other things than connections: the journal, plugins, Docker, playbooks.
const OTHER_DESCRIPTORS: u64 = 64;

/// How many connections may be open: what the configuration says, and no more than half of the descriptors that are
/// left for them.
pub(crate) fn connections(wanted: u32) -> usize {
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let left = descriptors.saturating_sub(OTHER_DESCRIPTORS) / 2;
    usize::try_from(u64::from(wanted).min(left.max(8))).unwrap_or(8)
}

/// The connections that are open, oldest first.
#[derive(Debug, Default)]
struct Connections {
    open: Mutex<BTreeMap<u64, Arc<Connection>>>,
}

/// What is known of a connection from outside its task.
#[derive(Debug)]
struct Connection {
    /// Cancelled when its place is needed.
    leave: CancellationToken,
    /// A request is being answered, or its answer sent.
    busy: AtomicBool,
    /// When its answer was there to be sent, in seconds since [`Self::began`]; 0 before that.
    answered: AtomicU32,
    /// Its last request delivered alerts.
    delivers: AtomicBool,
    /// When something moved last, in seconds since [`Self::began`].
    moved: AtomicU32,
    began: Instant,
}

impl Connection {
    fn now(&self) -> u32 {
        u32::try_from(self.began.elapsed().as_secs()).unwrap_or(u32::MAX)
    }

    fn since(&self, moment: &AtomicU32) -> Duration {
        let moment = moment.load(Ordering::Relaxed);
        Duration::from_secs(u64::from(self.now().saturating_sub(moment)))
    }

    fn still(&self) -> Duration {
        self.since(&self.moved)
    }

    fn move_on(&self) {
        self.moved.store(self.now(), Ordering::Relaxed);
    }

    fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Relaxed)
    }

    fn is_idle(&self, delivers: bool) -> bool {
        !self.is_busy() && self.delivers.load(Ordering::Relaxed) == delivers
    }

    /// Whether its client does not take what it asked for, or asks for nothing.
    fn is_stuck(&self) -> bool {
        let answered = self.answered.load(Ordering::Relaxed) != 0;
        if self.is_busy() && !answered {
            // The request has a deadline of its own.
            return false;
        }
        self.still() > STALLED || (self.is_busy() && self.since(&self.answered) > TAKEN)
    }
}

impl Connections {
    fn open(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Connection>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes one that does nothing leave: the oldest, and one that delivers alerts only if there is no other; then the
    /// one on which nothing has moved for longest. Says whether there was one.
    fn make_room(&self) -> bool {
        let mut open = self.open();
        let still = || {
            let by_stillness = open.iter().max_by_key(|(_, connection)| connection.still());
            by_stillness.filter(|(_, connection)| connection.still() >= STILL)
        };
        let found = open
            .iter()
            .find(|(_, connection)| connection.is_idle(false))
            .or_else(|| open.iter().find(|(_, connection)| connection.is_idle(true)))
            .or_else(still);
        let Some(number) = found.map(|(number, _)| *number) else {
            return false;
        };
        if let Some(connection) = open.remove(&number) {
            connection.leave.cancel();
        }
        true
    }
}

/// Takes the connection out of the others when it has ended, however that came.
struct Registered {
    connections: Arc<Connections>,
    metrics: Arc<Metrics>,
    number: u64,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.connections.open().remove(&self.number);
        self.metrics.connection(-1);
    }
}

/// What answers, and within which bounds.
pub(crate) struct Server {
    pub(super) router: Router,
    pub(super) edge: Arc<Edge>,
    pub(super) metrics: Arc<Metrics>,
    /// How many connections may be open.
    pub(super) most: usize,
}

impl Server {
    /// Serves until `stopping`, then lets requests that have begun finish.
    pub(crate) async fn serve(self, listener: TcpListener, stopping: CancellationToken) {
        let server = Arc::new(self);
        let tasks = TaskTracker::new();
        let connections = Arc::new(Connections::default());
        let mut number = 0;
        loop {
            let stream = tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        // Out of descriptors, most likely: one that nobody uses is given up for it.
                        let made = connections.make_room();
                        server.metrics.connection_refused(&error.to_string());
                        tokio::time::sleep(if made { Duration::from_millis(10) } else { Duration::from_millis(200) }).await;
                        continue;
                    }
                },
                () = stopping.cancelled() => break,
            };
            if connections.open().len() >= server.most && !connections.make_room() {
                server
                    .metrics
                    .connection_refused("too many are open and busy (limits.connections)");
                turn_away(&stream);
                continue;
            }
            number += 1;
            let connection = Arc::new(Connection {
                leave: CancellationToken::new(),
                busy: AtomicBool::new(false),
                answered: AtomicU32::new(0),
                delivers: AtomicBool::new(false),
                moved: AtomicU32::new(0),
                began: Instant::now(),
            });
            connections.open().insert(number, connection.clone());
            server.metrics.connection(1);
            let registered = Registered {
                connections: connections.clone(),
                metrics: server.metrics.clone(),
                number,
            };
            let (server, stopping) = (server.clone(), stopping.clone());
            tasks.spawn(async move {
                let _registered = registered;
                server.answer(stream, connection, stopping).await;
            });
        }
        tasks.close();
        if tokio::time::timeout(DRAIN, tasks.wait()).await.is_err() {
            tracing::warn!(
                open = tasks.len(),
                "connections are closed on their clients"
            );
        }
    }

    /// Answers the requests of one connection.
    async fn answer(
        self: Arc<Self>,
        stream: TcpStream,
        connection: Arc<Connection>,
        stopping: CancellationToken,
    ) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::trace!(%error, "TCP_NODELAY is not set");
        }
        let of = connection.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let (server, busy) = (self.clone(), Busy::new(&of, request.uri().path()));
            async move {
                let request = request.map(Body::new);
                let answer = server.edge.answer(server.router.clone(), request).await;
                busy.answered();
                Ok::<_, Infallible>(held(answer, busy))
            }
        });
        let mut builder = Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .max_header_size(HEADERS)
            .max_headers(HEADER_COUNT)
            .max_buf_size(BUFFER)
            // A client that has sent all and hung up has delivered: without this,
            // its request would be dropped where it stands.
            .half_close(true);
        let io = TokioIo::new(Moving {
            stream,
            connection: connection.clone(),
        });
        let served = builder.serve_connection(io, service);
        tokio::pin!(served);
        let mut look = tokio::time::interval(LOOK);
        let (mut left, mut stopped) = (false, false);
        let ended = loop {
            tokio::select! {
                ended = &mut served => break ended,
                () = connection.leave.cancelled(), if !left => {
                    if !connection.is_busy() || connection.still() >= STILL {
                        return;
                    }
                    left = true;
                    served.as_mut().graceful_shutdown();
                }
                () = stopping.cancelled(), if !stopped => {
                    stopped = true;
                    served.as_mut().graceful_shutdown();
                }
                _ = look.tick() => {
                    if connection.is_stuck() {
                        return;
                    }
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection ended badly");
        }
    }
}

/// Tells a client that there is no place for it, if its connection takes that much at once.
fn turn_away(stream: &TcpStream) {
    const NO: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\ncontent-length: 41\r\nconnection: close\r\n\r\n{\"error\":\"too many connections are open\"}";
    if let Err(error) = stream.try_write(NO) {
        tracing::trace!(%error, "nobody is told");
    }
}

/// A request that is being answered.
struct Busy(Arc<Connection>);

impl Busy {
    fn new(connection: &Arc<Connection>, path: &str) -> Self {
        connection.busy.store(true, Ordering::Relaxed);
        connection.answered.store(0, Ordering::Relaxed);
        let delivers = super::is_door(path);
        connection.delivers.store(delivers, Ordering::Relaxed);
        Self(connection.clone())
    }

    fn answered(&self) {
        self.0
            .answered
            .store(self.0.now().max(1), Ordering::Relaxed);
        self.0.move_on();
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.move_on();
        self.0.busy.store(false, Ordering::Relaxed);
    }
}

/// A stream that notes when something moves on it.
struct Moving {
    stream: TcpStream,
    connection: Arc<Connection>,
}

impl Moving {
    fn noted<T>(&self, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if matches!(polled, Poll::Ready(Ok(_))) {
            self.connection.move_on();
        }
        polled
    }
}

impl AsyncRead for Moving {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.noted(polled)
    }
}

impl AsyncWrite for Moving {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.noted(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.noted(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

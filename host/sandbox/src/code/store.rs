//! Machine code that is kept from one start to the next.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rand::Rng as _;
use ring::hmac;
use rustix::fs::OFlags;
use sentinel_core::id::Digest;
use serde::{Deserialize, Serialize};
use wasmtime::Engine;

use crate::contract;
use crate::engine::SandboxConfig;

/// How the files are laid out: this, the authentication code, the length of the head, the
/// head as JSON, the machine code.
const MAGIC: &[u8; 8] = b"sentinel";
/// Goes up with the layout, and with whatever else makes older files useless.
const LAYOUT: u32 = 1;
const CODE_BYTES: usize = 32;
/// Where the head begins.
const HEAD: usize = MAGIC.len() + CODE_BYTES + size_of::<u32>();
/// How much is kept in all.
const TOTAL: u64 = 1 << 30;

/// A folder of machine code, by the digest of the plugin and what the engine is.
///
/// Machine code is trusted like the program itself, so nothing is run that this store did
/// not write: the folder is the daemon's alone, and each file carries an authentication
/// code by a key that is kept elsewhere. What does not check is removed, and made anew.
#[derive(Clone)]
pub struct CodeStore {
    folder: PathBuf,
    key: hmac::Key,
}

impl std::fmt::Debug for CodeStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CodeStore")
            .field("folder", &self.folder)
            .finish_non_exhaustive()
    }
}

/// What was found out of a plugin beside its code, and would be again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Told {
    /// What it imports, as [`Import`](sentinel_core::grant::Import) is displayed.
    pub(crate) imports: Vec<String>,
    /// What `describe` said.
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) summary: String,
    pub(crate) params_schema: String,
}

/// What is kept of a plugin.
pub(crate) struct Kept {
    pub(crate) told: Told,
    pub(crate) code: Vec<u8>,
    /// Where in `code` the machine code begins.
    from: usize,
}

impl Kept {
    pub(crate) fn code(&self) -> &[u8] {
        self.code.get(self.from..).unwrap_or_default()
    }
}

impl CodeStore {
    /// Opens the store in `folder`, with the key in the file `key`; makes what is missing.
    /// Fails when either is not the calling user's alone, or cannot be made.
    pub fn open(folder: &Path, key: &Path) -> io::Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
        private(&fs::symlink_metadata(folder)?, folder)?;
        let key = match read_key(key) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => make_key(key)?,
            read => read?,
        };
        Ok(Self {
            folder: folder.to_owned(),
            key: hmac::Key::new(hmac::HMAC_SHA256, &key),
        })
    }

    /// What is kept of the plugin for this engine, if it is there and unchanged.
    pub(crate) fn get(
        &self,
        digest: &Digest,
        engine: &Engine,
        config: &SandboxConfig,
    ) -> Option<Kept> {
        let name = name(digest, engine, config);
        let path = self.folder.join(&name);
        match self.read(&path, &name) {
            Ok(kept) => {
                // What is used last is removed last.
                let touched =
                    File::open(&path).and_then(|file| file.set_modified(SystemTime::now()));
                if let Err(error) = touched {
                    tracing::debug!(%error, file = %path.display(), "kept machine code keeps its age");
                }
                Some(kept)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(%error, file = %path.display(), "kept machine code is not used; the plugin is compiled anew");
                if let Err(error) = fs::remove_file(&path) {
                    tracing::debug!(%error, file = %path.display(), "it stays where it is");
                }
                None
            }
        }
    }

    /// Keeps machine code for the next time. What goes wrong is logged: the plugin serves
    /// all the same.
    pub(crate) fn put(
        &self,
        digest: &Digest,
        engine: &Engine,
        config: &SandboxConfig,
        told: &Told,
        code: &[u8],
    ) {
        let name = name(digest, engine, config);
        if let Err(error) = self.write(&name, told, code) {
            tracing::warn!(%error, folder = %self.folder.display(), "machine code cannot be kept; the next start compiles again");
        }
        if let Err(error) = self.make_room(&name) {
            tracing::debug!(%error, folder = %self.folder.display(), "old machine code is not removed");
        }
    }

    fn read(&self, path: &Path, name: &str) -> io::Result<Kept> {
        let mut file = OpenOptions::new()
            .read(true)
            .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed())
            .open(path)?;
        let metadata = file.metadata()?;
        private(&metadata, path)?;
        if !metadata.is_file() {
            return Err(bad("it is no file"));
        }
        let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or_default());
        file.read_to_end(&mut bytes)?;
        let rest = bytes
            .strip_prefix(MAGIC.as_slice())
            .ok_or_else(|| bad("it is something else"))?;
        let (code, rest) = rest
            .split_at_checked(CODE_BYTES)
            .ok_or_else(|| bad("it is cut short"))?;
        hmac::verify(&self.key(name), rest, code)
            .map_err(|_| bad("it was changed, or written with another key"))?;
        let (length, rest) = rest
            .split_first_chunk()
            .ok_or_else(|| bad("it is cut short"))?;
        let length = u32::from_le_bytes(*length) as usize;
        let head = rest.get(..length).ok_or_else(|| bad("it is cut short"))?;
        let told = serde_json::from_slice(head)?;
        Ok(Kept {
            told,
            code: bytes,
            from: HEAD + length,
        })
    }

    fn write(&self, name: &str, told: &Told, code: &[u8]) -> io::Result<()> {
        let head = serde_json::to_vec(told)?;
        let length = u32::try_from(head.len()).map_err(io::Error::other)?;
        let mut rest = Vec::with_capacity(size_of::<u32>() + head.len() + code.len());
        rest.extend_from_slice(&length.to_le_bytes());
        rest.extend_from_slice(&head);
        rest.extend_from_slice(code);
        let authentication = hmac::sign(&self.key(name), &rest);
        // Whole or not at all, and never over one that may be in use. It need not survive
        // a loss of power: half a file does not check.
        let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
        file.write_all(MAGIC)?;
        file.write_all(authentication.as_ref())?;
        file.write_all(&rest)?;
        file.persist(self.folder.join(name))?;
        Ok(())
    }

    /// A key for each name, so that no file stands in for another.
    fn key(&self, name: &str) -> hmac::Key {
        let own = hmac::sign(&self.key, name.as_bytes());
        hmac::Key::new(hmac::HMAC_SHA256, own.as_ref())
    }

    /// Removes what was not used for longest, as long as there is too much, and what a
    /// writer that was cut off left behind.
    fn make_room(&self, written: &str) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            let is_code = entry
                .path()
                .extension()
                .is_some_and(|ending| ending == "code");
            let age = metadata.modified()?;
            let abandoned = age.elapsed().is_ok_and(|age| age.as_secs() > 3600);
            if !is_code && abandoned {
                fs::remove_file(entry.path())?;
            } else if is_code && entry.file_name() != written {
                files.push((age, metadata.len(), entry.path()));
            }
        }
        files.sort();
        let mut total: u64 = files.iter().map(|(_, size, _)| size).sum();
        for (_, size, path) in files {
            if total <= TOTAL {
                break;
            }
            fs::remove_file(path)?;
            total -= size;
        }
        Ok(())
    }
}

/// What decides whether machine code fits: the plugin, wasmtime with all its settings,
/// the processor, and what this sandbox would say of the plugin.
fn name(digest: &Digest, engine: &Engine, config: &SandboxConfig) -> String {
    let mut hasher = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    (LAYOUT, contract::VERSION, config.room).hash(&mut hasher);
    format!("{}.{:016x}.code", digest.hex(), hasher.finish())
}

fn bad(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

/// That nobody but the calling user can write it, or read it.
fn private(metadata: &fs::Metadata, path: &Path) -> io::Result<()> {
    let own = rustix::process::geteuid().as_raw();
    let closed = metadata.permissions().mode().trailing_zeros() >= 6;
    if metadata.uid() == own && closed && !metadata.is_symlink() {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::PermissionDenied,
        format!(
            "{} has to be sentinel's own and closed to others (chmod go-rwx)",
            path.display()
        ),
    ))
}

fn read_key(path: &Path) -> io::Result<[u8; 32]> {
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed())
        .open(path)?;
    private(&file.metadata()?, path)?;
    let mut key = Vec::new();
    file.read_to_end(&mut key)?;
    key.try_into()
        .map_err(|_| bad("the key of the machine code is damaged: remove it"))
}

fn make_key(path: &Path) -> io::Result<[u8; 32]> {
    let mut key = [0; 32];
    rand::rng().fill_bytes(&mut key);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(&key)?;
    file.sync_all()?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine;

    fn told() -> Told {
        Told {
            imports: vec!["docker.restart".to_owned()],
            name: "x".to_owned(),
            version: "1.2.3".to_owned(),
            summary: String::new(),
            params_schema: "{}".to_owned(),
        }
    }

    struct Fixture {
        folder: tempfile::TempDir,
        store: CodeStore,
        engine: Engine,
        config: SandboxConfig,
        digest: Digest,
    }

    impl Fixture {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let config = SandboxConfig::default();
            Self {
                store: open(folder.path()),
                folder,
                engine: engine::compiling(&config).unwrap(),
                config,
                digest: Digest::of(b"wasm"),
            }
        }

        fn put(&self, code: &[u8]) {
            self.store
                .put(&self.digest, &self.engine, &self.config, &told(), code);
        }

        fn get(&self) -> Option<Vec<u8>> {
            let kept = self.store.get(&self.digest, &self.engine, &self.config)?;
            assert_eq!(kept.told, told());
            Some(kept.code().to_vec())
        }

        fn file(&self) -> PathBuf {
            self.folder
                .path()
                .join("code")
                .join(name(&self.digest, &self.engine, &self.config))
        }
    }

    fn open(folder: &Path) -> CodeStore {
        CodeStore::open(&folder.join("code"), &folder.join("code.key")).unwrap()
    }

    #[test]
    fn what_is_kept_is_had_again_also_by_the_next_start() {
        let mut fixture = Fixture::new();
        assert!(fixture.get().is_none());
        fixture.put(b"code");
        assert_eq!(fixture.get().unwrap(), b"code");
        fixture.store = open(fixture.folder.path());
        assert_eq!(fixture.get().unwrap(), b"code");
        // Another engine is another name.
        fixture.config.room.memory /= 2;
        assert!(fixture.get().is_none());
    }

    #[test]
    fn what_was_changed_is_never_used_and_goes_away() {
        let fixture = Fixture::new();
        fixture.put(b"code");
        let good = fs::read(fixture.file()).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(fixture.file(), &bad).unwrap();
            assert!(fixture.get().is_none(), "byte {at}");
            assert!(!fixture.file().exists(), "byte {at}");
            fixture.put(b"code");
        }
        for length in 0..good.len() {
            fs::write(fixture.file(), &good[..length]).unwrap();
            assert!(fixture.get().is_none(), "{length} bytes");
            fixture.put(b"code");
        }
        assert_eq!(fixture.get().unwrap(), b"code");
    }

    #[test]
    fn a_file_does_not_stand_in_for_another() {
        let mut fixture = Fixture::new();
        fixture.put(b"code");
        let other = fixture.file();
        fixture.digest = Digest::of(b"other");
        fs::rename(other, fixture.file()).unwrap();
        assert!(fixture.get().is_none());
    }

    #[test]
    fn another_key_makes_everything_anew() {
        let mut fixture = Fixture::new();
        fixture.put(b"code");
        fs::remove_file(fixture.folder.path().join("code.key")).unwrap();
        fixture.store = open(fixture.folder.path());
        assert!(fixture.get().is_none());
    }

    #[test]
    fn what_others_may_write_or_read_is_not_used() {
        let fixture = Fixture::new();
        fixture.put(b"code");
        let good = fs::read(fixture.file()).unwrap();
        fs::set_permissions(fixture.file(), fs::Permissions::from_mode(0o644)).unwrap();
        assert!(fixture.get().is_none());
        let elsewhere = fixture.folder.path().join("elsewhere");
        fs::write(&elsewhere, good).unwrap();
        fs::set_permissions(&elsewhere, fs::Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::symlink(&elsewhere, fixture.file()).unwrap();
        assert!(fixture.get().is_none());
        assert!(elsewhere.exists());

        let (code, key) = (
            fixture.folder.path().join("code"),
            fixture.folder.path().join("code.key"),
        );
        for path in [&code, &key] {
            let before = fs::metadata(path).unwrap().permissions();
            fs::set_permissions(path, fs::Permissions::from_mode(0o750)).unwrap();
            let refused = CodeStore::open(&code, &key).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied, "{refused}");
            fs::set_permissions(path, before).unwrap();
        }
    }

    #[test]
    fn what_a_killed_writer_left_is_removed_later() {
        let fixture = Fixture::new();
        let left = fixture.folder.path().join("code/.tmpabc");
        let fresh = fixture.folder.path().join("code/.tmpdef");
        for path in [&left, &fresh] {
            fs::write(path, "half").unwrap();
        }
        let hours_ago = SystemTime::now() - std::time::Duration::from_hours(2);
        File::options()
            .write(true)
            .open(&left)
            .unwrap()
            .set_modified(hours_ago)
            .unwrap();
        fixture.put(b"code");
        assert!(!left.exists() && fresh.exists());
    }
}

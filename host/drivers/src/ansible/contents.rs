//! What the playbooks folder holds, as one digest: a playbook does what the roles, tasks,
//! variables and templates say that it uses, and Ansible alone knows which those are.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use sentinel_core::capability::CapabilityError;
use sentinel_core::id::Digest;

/// How many files and folders a playbooks folder may have.
const ENTRIES: usize = 20_000;

/// How deep its folders may go.
const DEPTH: usize = 32;

/// Of a larger file, in bytes, its size and times stand for what is in it: archives that
/// playbooks copy.
const READ: u64 = 1 << 20;

/// How much is read in all, in bytes; of the other files the same holds.
const READ_IN_ALL: u64 = 64 << 20;

/// A file that was written within so many seconds can be written again without its times
/// telling.
const SETTLED: i64 = 2;

/// What files hold, as far as it is known from the last look.
#[derive(Debug, Default)]
pub(super) struct Contents(Mutex<HashMap<PathBuf, (Stamp, Digest)>>);

/// What changes with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    file: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(found: &Metadata) -> Self {
        Self {
            file: (found.dev(), found.ino()),
            size: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        }
    }

    /// Whether whatever is written from `now` on will show in it.
    fn is_settled(&self, now: i64) -> bool {
        self.modified.0.max(self.changed.0) + SETTLED < now
    }
}

impl Contents {
    /// The digest of what `folder` holds: every name and what is in it, but for what is
    /// hidden, and what Ansible and Python leave behind when they run. Blocks; reads only
    /// what has changed since the last look.
    pub(super) fn digest(&self, folder: &Path) -> Result<Digest, CapabilityError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_or(0, |now| i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
        self.digest_at(folder, now)
    }

    fn digest_at(&self, folder: &Path, now: i64) -> Result<Digest, CapabilityError> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut walk = Walk {
            before: std::mem::take(&mut *known),
            known: HashMap::new(),
            listed: Vec::new(),
            entries: 0,
            read: 0,
            now,
        };
        let itself = std::fs::metadata(folder).map(|found| (found.dev(), found.ino()));
        let walked = walk.folder(folder, &mut itself.into_iter().collect());
        *known = walk.known;
        walked?;
        Ok(Digest::of(&walk.listed))
    }
}

/// One look through the folder.
struct Walk {
    before: HashMap<PathBuf, (Stamp, Digest)>,
    known: HashMap<PathBuf, (Stamp, Digest)>,
    /// Every path, and what is there.
    listed: Vec<u8>,
    entries: usize,
    read: u64,
    now: i64,
}

impl Walk {
    /// Lists a folder, in the order of its names. `above` are the folders that it is in.
    fn folder(&mut self, path: &Path, above: &mut Vec<(u64, u64)>) -> Result<(), CapabilityError> {
        let Ok(entries) = std::fs::read_dir(path) else {
            // Ansible, which runs as the same user, cannot read it either.
            self.list(path, b"unreadable");
            return Ok(());
        };
        let mut paths: Vec<PathBuf> = entries
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .filter(|path| !path.file_name().is_none_or(is_left_out))
            .take(ENTRIES + 1)
            .collect();
        paths.sort();
        for path in paths {
            self.entries += 1;
            if self.entries > ENTRIES {
                return Err(too_large(&format!("more than {ENTRIES} files and folders")));
            }
            // Links are followed, as Ansible does.
            let Ok(found) = std::fs::metadata(&path) else {
                self.list(&path, b"missing");
                continue;
            };
            if found.is_file() {
                self.file(&path, &found);
            } else if found.is_dir() {
                self.list(&path, b"folder");
                let itself = (found.dev(), found.ino());
                // A link that leads back up has nothing new below it.
                if above.contains(&itself) {
                    continue;
                }
                if above.len() >= DEPTH {
                    return Err(too_large(&format!("folders more than {DEPTH} deep")));
                }
                above.push(itself);
                self.folder(&path, above)?;
                above.pop();
            } else {
                // A pipe would be waited for.
                self.list(&path, b"neither");
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &Path, found: &Metadata) {
        let stamp = Stamp::of(found);
        self.read = self.read.saturating_add(stamp.size);
        if stamp.size > READ || self.read > READ_IN_ALL {
            self.list(path, format!("{stamp:?}").as_bytes());
            return;
        }
        let known = self.before.get(path).filter(|(before, _)| *before == stamp);
        let digest = match known {
            Some((_, digest)) => Ok(*digest),
            None => read(path),
        };
        let Ok(digest) = digest else {
            self.list(path, b"unreadable");
            return;
        };
        if stamp.is_settled(self.now) {
            self.known.insert(path.to_owned(), (stamp, digest));
        }
        self.list(path, digest.to_string().as_bytes());
    }

    fn list(&mut self, path: &Path, what: &[u8]) {
        for part in [path.as_os_str().as_bytes(), what] {
            self.listed.extend_from_slice(part);
            // In no path, and in nothing that is said of one.
            self.listed.push(0);
        }
    }
}

fn read(path: &Path) -> std::io::Result<Digest> {
    let mut bytes = Vec::new();
    // One that has grown in the meantime is looked at again.
    File::open(path)?.take(READ + 1).read_to_end(&mut bytes)?;
    Ok(Digest::of(&bytes))
}

/// Whether something is no part of what playbooks are: what is hidden (a checkout's own
/// files, an editor's), and what runs write beside what they read.
fn is_left_out(name: &OsStr) -> bool {
    let bytes = name.as_bytes();
    let ending = Path::new(name).extension();
    bytes.starts_with(b".")
        || bytes == b"__pycache__"
        || ending.is_some_and(|ending| ["log", "pyc", "retry"].iter().any(|left| ending == *left))
}

fn too_large(what: &str) -> CapabilityError {
    CapabilityError::Failed(format!(
        "the playbooks folder has {what}, and all that it holds is part of what a playbook is: keep in it what playbooks use and nothing else"
    ))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::time::{Duration, Instant};

    use super::*;

    /// A folder as playbooks are kept in one.
    fn site() -> tempfile::TempDir {
        let site = tempfile::tempdir().unwrap();
        let at = |path: &str| site.path().join(path);
        for folder in [
            "roles/web/tasks",
            "vars",
            "templates",
            "library/__pycache__",
            ".git",
        ] {
            fs::create_dir_all(at(folder)).unwrap();
        }
        for file in [
            "main.yml",
            "roles/web/tasks/main.yml",
            "vars/web.yml",
            "templates/web.conf.j2",
            "library/probe.py",
            "ansible.cfg",
        ] {
            fs::write(at(file), file).unwrap();
        }
        site
    }

    #[test]
    fn whatever_a_playbook_may_use_is_part_of_it() {
        let site = site();
        let at = |path: &str| site.path().join(path);
        let contents = Contents::default();
        let digest = || contents.digest(site.path()).unwrap();
        let mut before = digest();
        let mut changes = |what: &str| {
            let now = digest();
            assert_ne!(now, before, "{what}");
            assert_eq!(now, digest(), "{what}");
            assert_eq!(now, Contents::default().digest(site.path()).unwrap());
            before = now;
        };
        // The same size each time, and at once: the times alone might not tell.
        for file in [
            "roles/web/tasks/main.yml",
            "vars/web.yml",
            "templates/web.conf.j2",
        ] {
            fs::write(at(file), file.to_uppercase()).unwrap();
            changes(file);
        }
        fs::write(at("vars/new.yml"), "").unwrap();
        changes("a new file");
        fs::rename(at("vars/new.yml"), at("vars/renamed.yml")).unwrap();
        changes("another name");
        fs::remove_file(at("vars/renamed.yml")).unwrap();
        changes("one less");
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("main.yml"), "a").unwrap();
        symlink(outside.path(), at("roles/linked")).unwrap();
        changes("a link");
        fs::write(outside.path().join("main.yml"), "b").unwrap();
        changes("what a link leads to");
        fs::write(at("big"), vec![0; 2 << 20]).unwrap();
        changes("a large file");
        let again = File::options().write(true).open(at("big")).unwrap();
        again.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        changes("a large file at another time");
    }

    #[test]
    fn what_runs_and_checkouts_write_is_no_part_of_it() {
        let site = site();
        let at = |path: &str| site.path().join(path);
        let contents = Contents::default();
        let before = contents.digest(site.path()).unwrap();
        for file in [
            ".git/index",
            ".main.yml.swp",
            "library/__pycache__/probe.pyc",
            "main.retry",
            "ansible.log",
        ] {
            fs::write(at(file), "x").unwrap();
        }
        assert_eq!(contents.digest(site.path()).unwrap(), before);
    }

    #[test]
    fn a_file_that_did_not_change_is_not_read_again() {
        let site = site();
        let contents = Contents::default();
        let really = contents.digest(site.path()).unwrap();
        assert!(contents.0.lock().unwrap().is_empty(), "written just now");
        let later = i64::MAX;
        assert_eq!(contents.digest_at(site.path(), later).unwrap(), really);
        assert_eq!(contents.0.lock().unwrap().len(), 6);
        // What is known of a file is believed as long as its stamp is the same.
        for (_, digest) in contents.0.lock().unwrap().values_mut() {
            *digest = Digest::of(b"wrong");
        }
        let believed = contents.digest_at(site.path(), later).unwrap();
        assert_ne!(believed, really);
        fs::write(site.path().join("main.yml"), "longer than before").unwrap();
        assert_ne!(contents.digest_at(site.path(), later).unwrap(), believed);
    }

    #[test]
    fn no_folder_takes_for_ever() {
        let site = site();
        let at = |path: &str| site.path().join(path);
        symlink(site.path(), at("roles/up")).unwrap();
        symlink(at("nowhere"), at("gone")).unwrap();
        nix::unistd::mkfifo(&at("pipe"), nix::sys::stat::Mode::S_IRUSR).unwrap();
        let contents = Contents::default();
        let begun = Instant::now();
        contents.digest(site.path()).unwrap();
        assert!(begun.elapsed() < Duration::from_secs(2));
        // Links that double what is below them at each level.
        for level in 0..20 {
            let folder = at(&format!("double/{level}"));
            fs::create_dir_all(&folder).unwrap();
            for side in ["a", "b"] {
                symlink(at(&format!("double/{}", level + 1)), folder.join(side)).unwrap();
            }
        }
        let said = contents.digest(site.path()).unwrap_err().to_string();
        assert!(said.contains("more than 20000 files"), "{said}");
    }
}

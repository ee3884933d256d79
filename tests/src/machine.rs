//! What the tests change about the machine around a daemon: its disk and its clock.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::daemon::Daemon;

/// A disk of its own, mounted until it is dropped.
#[derive(Debug)]
pub struct Disk {
    folder: PathBuf,
}

impl Disk {
    /// A small disk, in memory.
    #[must_use]
    pub fn small(folder: &Path, size: &str) -> Self {
        let options = format!("size={size},mode=0700");
        mount(&["-t", "tmpfs", "-o", &options, "tmpfs"], folder);
        Self {
            folder: folder.to_owned(),
        }
    }

    /// A file system in a file, which goes read-only at an error, as those of servers do. The same file can be
    /// mounted again later.
    #[must_use]
    pub fn in_file(image: &Path, folder: &Path) -> Self {
        if !image.exists() {
            let file = fs::File::create(image).expect("a file");
            file.set_len(32 << 20).expect("room");
            run(Command::new("mkfs.ext4").arg("-q").arg(image));
        }
        let image = image.to_str().expect("a path");
        mount(&["-o", "loop,errors=remount-ro", image], folder);
        Self {
            folder: folder.to_owned(),
        }
    }

    /// Takes all the room that is left, as somebody else's files do; `free` gives it back.
    pub fn fill(&self) {
        let filled = fs::write(self.ballast(), vec![0; 64 << 20]);
        assert!(filled.is_err(), "the disk is full");
    }

    /// Gives the room back that `fill` took.
    pub fn free(&self) {
        fs::remove_file(self.ballast()).expect("the ballast");
    }

    fn ballast(&self) -> PathBuf {
        self.folder.join("ballast")
    }

    /// Makes it read-only, which the kernel allows while nobody has a file open for writing.
    pub fn read_only(&self) {
        mount(&["-o", "remount,ro"], &self.folder);
    }

    /// Takes `read_only` back.
    pub fn writable(&self) {
        mount(&["-o", "remount,rw"], &self.folder);
    }

    /// Makes the kernel find an error on a disk [`in_file`](Self::in_file): it is read-only at once, whoever
    /// writes.
    pub fn fail(&self) {
        let found = run(Command::new("findmnt")
            .args(["-no", "SOURCE"])
            .arg(&self.folder));
        let device = found.rsplit('/').next().unwrap_or_default();
        fs::write(format!("/sys/fs/ext4/{device}/trigger_fs_error"), "1").expect("an error");
        let probe = fs::write(self.ballast(), "x");
        assert!(probe.is_err(), "the disk is read-only");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _unmounted = Command::new("umount").arg("-l").arg(&self.folder).status();
    }
}

fn mount(args: &[&str], folder: &Path) {
    run(Command::new("mount").args(args).arg(folder));
}

fn run(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}; run the tests with `make test`"));
    assert!(
        output.status.success(),
        "{command:?}: {}\nthis test mounts a disk: run it as root",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// The clock of a daemon, which can be set while it runs.
#[derive(Debug)]
pub struct Clock {
    file: PathBuf,
}

impl Clock {
    /// Gives the daemon, which must not run yet, a clock that is right until it is set.
    #[must_use]
    pub fn of(daemon: &mut Daemon) -> Self {
        let clock = Self {
            file: daemon.path("clock"),
        };
        clock.set(0);
        // The program knows where its library is.
        let environment = run(Command::new("faketime").args(["-m", "-f", "+0s", "env"]));
        let preload = environment
            .lines()
            .find_map(|line| line.strip_prefix("LD_PRELOAD="))
            .expect("faketime preloads its library");
        daemon.set("LD_PRELOAD", preload);
        let file = clock.file.to_str().expect("a path").to_owned();
        daemon.set("FAKETIME_TIMESTAMP_FILE", &file);
        daemon.set("FAKETIME_NO_CACHE", "1");
        // A clock that is set leaves the time since the start of the machine alone.
        daemon.set("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        daemon.set("NO_FAKE_STAT", "1");
        clock
    }

    /// Sets it this many seconds away from the right time.
    pub fn set(&self, seconds: i64) {
        let beside = self.file.with_extension("new");
        fs::write(&beside, format!("{seconds:+}s\n")).expect("a file");
        fs::rename(&beside, &self.file).expect("a rename");
    }
}

//! Other machines, on this one: a second Docker Engine behind TLS, and an ssh server. Each
//! is started by the test that needs it, on loopback, and ended with it.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// How long a server may take to answer.
const START: Duration = Duration::from_secs(60);

/// Runs a program that has to succeed; what it printed.
pub fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}; run `stack/setup/packages.sh tests`"));
    assert!(
        output.status.success(),
        "{program} {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// A folder that only we may read, as keys have to be kept.
pub(crate) fn private_folder(prefix: &str) -> TempDir {
    let folder = tempfile::Builder::new()
        .prefix(prefix)
        .tempdir()
        .expect("a temporary folder");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).expect("a mode");
    folder
}

/// A port that nobody listened on a moment ago.
#[must_use]
pub fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a free port")
}

/// A server that is ended with the test.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    log: PathBuf,
}

impl Server {
    pub(crate) fn start(command: &mut Command, log: PathBuf) -> Self {
        let file = fs::File::create(&log).expect("a log");
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a log"))
            .stderr(file)
            .spawn()
            .unwrap_or_else(|error| {
                panic!("{command:?}: {error}; run `stack/setup/packages.sh docker tests`")
            });
        Self { child, log }
    }

    pub(crate) fn wait_for(&mut self, what: &str, is_there: impl Fn() -> bool) {
        let begun = Instant::now();
        while !is_there() {
            let ended = self.child.try_wait().expect("a process");
            assert!(
                ended.is_none() && begun.elapsed() < START,
                "{what} did not come up: {ended:?}\n{}",
                fs::read_to_string(&self.log).unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let pid = Pid::from_raw(self.child.id().cast_signed());
        // It may have ended by itself.
        kill(pid, Signal::SIGTERM).ok();
        let begun = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            if begun.elapsed() > Duration::from_secs(20) {
                drop(self.child.kill());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// An authority, and what it signs.
#[derive(Debug)]
pub struct Authority {
    folder: TempDir,
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Authority {
    /// A new one, which nobody knows.
    #[must_use]
    pub fn new() -> Self {
        let authority = Self {
            folder: private_folder("sentinel-test-ca-"),
        };
        let (key, cert) = (authority.path("ca.key"), authority.path("ca.pem"));
        run(
            "openssl",
            &[
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-days",
                "2",
                "-subj",
                "/CN=sentinel test authority",
                "-addext",
                "basicConstraints=critical,CA:TRUE",
                "-addext",
                "keyUsage=critical,keyCertSign",
                "-keyout",
                &key,
                "-out",
                &cert,
            ],
        );
        authority
    }

    /// One of its files.
    #[must_use]
    pub fn path(&self, file: &str) -> String {
        self.folder.path().join(file).display().to_string()
    }

    /// Signs a certificate `NAME.pem` with the key `NAME.key`.
    pub fn sign(&self, name: &str, usage: &str) {
        let (key, request) = (self.path(&format!("{name}.key")), self.path("request"));
        run(
            "openssl",
            &[
                "req",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-subj",
                &format!("/CN={name}"),
                "-keyout",
                &key,
                "-out",
                &request,
            ],
        );
        let extensions = self.path("extensions");
        fs::write(
            &extensions,
            format!("subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage={usage}\n"),
        )
        .expect("a file");
        run(
            "openssl",
            &[
                "x509",
                "-req",
                "-in",
                &request,
                "-CA",
                &self.path("ca.pem"),
                "-CAkey",
                &self.path("ca.key"),
                "-CAcreateserial",
                "-days",
                "2",
                "-extfile",
                &extensions,
                "-out",
                &self.path(&format!("{name}.pem")),
            ],
        );
    }
}

/// A network bridge of its own, which is removed with it.
#[derive(Debug)]
struct Bridge {
    name: String,
}

impl Bridge {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("sntl{}-{number}", std::process::id());
        run("ip", &["link", "add", &name, "type", "bridge"]);
        let bridge = Self { name };
        // Out of a range that is kept for tests, and no one's network.
        let third = (std::process::id().wrapping_add(number)) % 256;
        let address = format!("198.18.{third}.1/24");
        run("ip", &["addr", "add", &address, "dev", &bridge.name]);
        bridge
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        // Whatever comes of it: a test that fails already must not end all of them.
        Command::new("ip")
            .args(["link", "del", &self.name])
            .output()
            .ok();
    }
}

/// A second Docker Engine. Give its containers no network: nothing leads anywhere from it.
#[derive(Debug)]
pub struct Engine {
    // Dropped in this order: the engine ends before what it uses goes.
    _server: Server,
    // Without a bridge of its own an engine uses, or with `--bridge=none` removes, the one
    // that the machine's own engine has for its containers.
    _bridge: Bridge,
    folder: TempDir,
    /// Where it listens for TLS.
    pub address: SocketAddr,
    /// Who signed its certificate and `client.pem`.
    pub authority: Authority,
}

impl Engine {
    /// Starts one and gives it an image of the machine's own engine.
    #[must_use]
    pub fn start(image: &str) -> Self {
        let folder = private_folder("sentinel-test-dockerd-");
        let at = |name: &str| folder.path().join(name).display().to_string();
        let authority = Authority::new();
        authority.sign("server", "serverAuth");
        authority.sign("client", "clientAuth");
        let address = free_address();
        let bridge = Bridge::new();
        let mut command = Command::new("dockerd");
        command
            .args([
                "--bridge",
                &bridge.name,
                "--iptables=false",
                "--ip6tables=false",
            ])
            .args(["--ip-forward=false", "--ip-masq=false", "--tlsverify"])
            // Apart from those of the machine's own engine, should they share a containerd.
            .args(["--containerd-namespace=sentinel-test"])
            .args(["--containerd-plugins-namespace=sentinel-test-plugins"])
            .args(["--data-root", &at("data"), "--exec-root", &at("exec")])
            .args(["--pidfile", &at("pid")])
            .args(["--tlscacert", &authority.path("ca.pem")])
            .args(["--tlscert", &authority.path("server.pem")])
            .args(["--tlskey", &authority.path("server.key")])
            .args(["--host", &format!("unix://{}", at("docker.sock"))])
            .args(["--host", &format!("tcp://{address}")]);
        let mut server = Server::start(&mut command, folder.path().join("log"));
        let socket = folder.path().join("docker.sock");
        server.wait_for("the second Docker Engine", || {
            let url = format!("unix://{}", socket.display());
            let asked = Command::new("docker")
                .args(["-H", &url, "version"])
                .output();
            asked.is_ok_and(|answer| answer.status.success())
        });
        let engine = Self {
            _server: server,
            _bridge: bridge,
            folder,
            address,
            authority,
        };
        let archive = engine.folder.path().join("image.tar").display().to_string();
        run("docker", &["save", "-o", &archive, image]);
        engine.docker(&["load", "-i", &archive]);
        engine
    }

    /// Its socket on this machine.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("docker.sock")
    }

    /// Runs its docker client.
    pub fn docker(&self, args: &[&str]) -> String {
        let url = format!("unix://{}", self.socket().display());
        let mut all = vec!["-H", url.as_str()];
        all.extend(args);
        run("docker", &all)
    }

    /// The configuration of this host.
    #[must_use]
    pub fn config(&self, authority: &Authority) -> String {
        format!(
            "{{ url: 'tcp://{}', tls: {{ ca: '{}', cert: '{}', key: '{}' }} }}",
            self.address,
            authority.path("ca.pem"),
            authority.path("client.pem"),
            authority.path("client.key"),
        )
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Else its processes outlive it.
        let url = format!("unix://{}", self.socket().display());
        let docker = |args: &[&str]| {
            let output = Command::new("docker")
                .args(["-H", &url])
                .args(args)
                .output();
            output.map_or_else(
                |_| String::new(),
                |output| String::from_utf8_lossy(&output.stdout).into_owned(),
            )
        };
        for container in docker(&["ps", "-aq"]).lines() {
            docker(&["rm", "-f", container]);
        }
    }
}

/// A pair of ssh keys: the file of the private one, and the public one beside it.
#[must_use]
pub fn ssh_key(folder: &Path, name: &str) -> PathBuf {
    let path = folder.join(name);
    run(
        "ssh-keygen",
        &[
            "-q",
            "-t",
            "ed25519",
            "-N",
            "",
            "-f",
            &path.display().to_string(),
        ],
    );
    path
}

/// An ssh server on loopback that lets this user in with one key.
#[derive(Debug)]
pub struct SshServer {
    _server: Server,
    folder: TempDir,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Default for SshServer {
    fn default() -> Self {
        Self::start()
    }
}

impl SshServer {
    /// Starts one.
    #[must_use]
    pub fn start() -> Self {
        let folder = private_folder("sentinel-test-sshd-");
        let address = free_address();
        let host = ssh_key(folder.path(), "host");
        let user = ssh_key(folder.path(), "user");
        let public = |key: &Path| {
            let text = fs::read_to_string(key.with_extension("pub")).expect("a key");
            text.trim().to_owned()
        };
        let authorized = folder.path().join("authorized_keys");
        fs::write(&authorized, public(&user)).expect("a file");
        let known = format!("[127.0.0.1]:{} {}\n", address.port(), public(&host));
        fs::write(folder.path().join("known_hosts"), known).expect("a file");
        let config = folder.path().join("sshd_config");
        let text = format!(
            "Port {}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\n\
             UsePAM no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\n\
             StrictModes no\n",
            address.port(),
            host.display(),
            authorized.display(),
        );
        fs::write(&config, text).expect("a file");
        // Where sshd shuts up the part of it that strangers speak to.
        fs::create_dir_all("/run/sshd").expect("/run/sshd");
        let mut command = Command::new("/usr/sbin/sshd");
        command.args(["-D", "-e", "-f"]).arg(&config);
        let mut server = Server::start(&mut command, folder.path().join("log"));
        server.wait_for("the ssh server", || TcpStream::connect(address).is_ok());
        Self {
            _server: server,
            folder,
            address,
        }
    }

    /// One of its files: `user`, the private key to log in with, or `known_hosts`.
    #[must_use]
    pub fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// The configuration of a Docker host behind it.
    #[must_use]
    pub fn config(&self, socket: &Path, known_hosts: &str) -> String {
        format!(
            "{{ url: 'ssh://{}@{}{}', ssh: {{ identity: '{}', known_hosts: '{known_hosts}' }} }}",
            run("id", &["-un"]),
            self.address,
            socket.display(),
            self.path("user"),
        )
    }
}

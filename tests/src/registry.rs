//! A real OCI registry, Debian's `docker-registry`, on this machine alone.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::daemon::client;
use crate::{eventually, unpacked};

/// A registry with a folder of its own.
#[derive(Debug)]
pub struct Registry {
    folder: TempDir,
    address: SocketAddr,
    child: Option<Child>,
    client: reqwest::Client,
}

/// What a registry wants of those who ask.
#[derive(Debug, Clone, Copy)]
pub enum Wants<'a> {
    /// Nothing.
    Nothing,
    /// A user and a password.
    Password(&'a str, &'a str),
    /// A token of whoever answers at this URL; its certificate is in this file.
    Token(&'a str, &'a Path),
    /// To be spoken to by TLS.
    Tls,
}

impl Registry {
    /// Starts one.
    pub async fn start(wants: Wants<'_>) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        // A port that nobody listens on a moment ago.
        let address = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a free port");
        let mut registry = Self {
            folder,
            address,
            child: None,
            client: client(),
        };
        registry.configure(wants);
        let log = fs::File::create(registry.path("log")).expect("a log");
        let child = Command::new(unpacked("registry", "docker-registry"))
            .arg("serve")
            .arg(registry.path("config.yml"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("docker-registry: `stack/setup/packages.sh tests` gets it");
        registry.child = Some(child);
        eventually("the registry listens", Duration::from_secs(20), || async {
            tokio::net::TcpStream::connect(address).await.ok()
        })
        .await;
        registry
    }

    fn configure(&self, wants: Wants<'_>) {
        let (mut auth, mut tls) = (Value::Null, Value::Null);
        match wants {
            Wants::Nothing => {}
            Wants::Password(user, password) => {
                let made = run(Command::new("htpasswd").args(["-Bbn", user, password]));
                fs::write(self.path("htpasswd"), made).expect("a file");
                auth = json!({ "htpasswd": { "realm": "test", "path": self.path("htpasswd") } });
            }
            Wants::Token(realm, certificate) => {
                auth = json!({ "token": {
                    "realm": realm,
                    "service": "registry",
                    "issuer": "test",
                    "rootcertbundle": certificate,
                } });
            }
            Wants::Tls => {
                certificate(self.folder.path());
                tls = json!({ "certificate": self.certificate(), "key": self.path("key.pem") });
            }
        }
        // JSON is YAML.
        let config = json!({
            "version": 0.1,
            "log": { "level": "error" },
            "storage": { "filesystem": { "rootdirectory": self.path("data") } },
            "http": { "addr": self.address.to_string(), "tls": tls },
            "auth": auth,
        });
        let mut config = config;
        let sections = config.as_object_mut().expect("a map");
        if sections["auth"].is_null() {
            sections.remove("auth");
        }
        if sections["http"]["tls"].is_null() {
            sections["http"]
                .as_object_mut()
                .expect("a map")
                .remove("tls");
        }
        fs::write(self.path("config.yml"), config.to_string()).expect("a file");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The certificate of one that speaks TLS.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.path("cert.pem")
    }

    /// A reference to something in it.
    #[must_use]
    pub fn reference(&self, rest: &str) -> String {
        format!("{}/{rest}", self.address)
    }

    /// Changes one byte of a blob where it is kept.
    pub fn damage(&self, digest: &str) {
        let file = self.blob(digest);
        let mut bytes = fs::read(&file).expect("a blob");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&file, bytes).expect("a blob");
    }

    /// Forgets a blob.
    pub fn lose(&self, digest: &str) {
        fs::remove_file(self.blob(digest)).expect("a blob");
    }

    fn blob(&self, digest: &str) -> PathBuf {
        let hex = digest.strip_prefix("sha256:").expect("a digest");
        let blobs = self.path("data/docker/registry/v2/blobs/sha256");
        blobs.join(&hex[..2]).join(hex).join("data")
    }

    /// Puts any bytes there, as a client of one's own would.
    pub async fn put_blob(&self, repository: &str, digest: &str, bytes: &[u8]) {
        let url = format!("http://{}/v2/{repository}/blobs/uploads/", self.address);
        let begun = self.client.post(url).send().await.expect("an answer");
        let place = begun.headers()["location"]
            .to_str()
            .expect("text")
            .to_owned();
        let mut place = reqwest::Url::parse(&place).expect("a URL");
        place.query_pairs_mut().append_pair("digest", digest);
        let put = self.client.put(place).body(bytes.to_vec());
        let put = put.send().await.expect("an answer");
        assert!(put.status().is_success(), "{}", put.text().await.unwrap());
    }

    /// Puts any manifest there.
    pub async fn put_manifest(&self, repository: &str, tag: &str, manifest: &Value) {
        let url = format!("http://{}/v2/{repository}/manifests/{tag}", self.address);
        let media_type = manifest["mediaType"].as_str().expect("a media type");
        let put = self.client.put(url).header("content-type", media_type);
        let put = put.body(manifest.to_string()).send().await;
        let put = put.expect("an answer");
        assert!(put.status().is_success(), "{}", put.text().await.unwrap());
    }

    /// What a tag names.
    pub async fn manifest(&self, repository: &str, tag: &str) -> Value {
        let url = format!("http://{}/v2/{repository}/manifests/{tag}", self.address);
        let asked = self.client.get(url);
        let asked = asked.header("accept", "application/vnd.oci.image.manifest.v1+json");
        let answer = asked.send().await.expect("an answer");
        answer.json().await.expect("JSON")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let killed = child.kill().and_then(|()| child.wait());
            assert!(killed.is_ok(), "the registry could not be ended");
        }
    }
}

/// Makes a certificate for this machine and its key, `cert.pem` and `key.pem`.
pub fn certificate(folder: &Path) {
    let mut openssl = Command::new("openssl");
    openssl
        .args([
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
        ])
        .args([
            "-subj",
            "/CN=test",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-addext",
            "basicConstraints=critical,CA:FALSE",
        ])
        .args(["-keyout", "key.pem", "-out", "cert.pem"])
        .current_dir(folder);
    run(&mut openssl);
}

fn run(command: &mut Command) -> Vec<u8> {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}; run the tests with `make test`"));
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

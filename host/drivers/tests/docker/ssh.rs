//! Docker Engines behind ssh.

use std::collections::BTreeMap;

use sentinel_drivers::docker::{Docker, DockerHost, SshFiles};
use sentinel_tests::remote::{SshServer, run};

use super::socket;

/// The environment of every `ssh` whose arguments name this machine's port.
fn environments(port: u16) -> Vec<String> {
    let read = |pid: &str, file: &str| {
        let bytes = std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).replace('\0', "\n")
    };
    let entries = std::fs::read_dir("/proc").unwrap();
    let pids = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    pids.filter(|pid| pid.bytes().all(|byte| byte.is_ascii_digit()))
        .filter(|pid| {
            let arguments = read(pid, "cmdline");
            arguments.starts_with("ssh\n") && arguments.contains(&format!("\n{port}\n"))
        })
        .map(|pid| read(&pid, "environ"))
        .collect()
}

#[tokio::test]
async fn ssh_sees_nothing_of_the_environment_but_what_it_needs() {
    let server = SshServer::start();
    let host = |known_hosts: String| DockerHost {
        url: format!(
            "ssh://{}@{}{}",
            run("id", &["-un"]),
            server.address,
            socket().trim_start_matches("unix://")
        ),
        ssh: Some(SshFiles {
            identity: Some(server.path("user").into()),
            known_hosts: Some(known_hosts.into()),
        }),
        ..DockerHost::default()
    };
    let nobody = tempfile::NamedTempFile::new().unwrap();
    let hosts = BTreeMap::from([
        ("known".to_owned(), host(server.path("known_hosts"))),
        (
            "stranger".to_owned(),
            host(nobody.path().display().to_string()),
        ),
    ]);
    let docker = Docker::new(hosts).unwrap();
    docker.ping("known").await.unwrap();
    let said = docker.ping("stranger").await.unwrap_err().to_string();
    assert!(said.contains("Host key verification failed"), "{said}");

    // Cargo gives every test some variables; whatever is not on the list is as good as a
    // secret.
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
    let found = environments(server.address.port());
    assert!(!found.is_empty(), "no ssh is connected");
    for environment in found {
        assert!(environment.contains("PATH="), "{environment}");
        assert!(!environment.contains("CARGO"), "{environment}");
    }
    drop(docker);
    assert!(
        environments(server.address.port()).is_empty(),
        "the connection ends with whoever used it"
    );
}

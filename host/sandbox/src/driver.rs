//! What the gate carries calls out with. The drivers crate implements these; the
//! sandbox knows capabilities only as the traits here.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use sentinel_core::alert::Labels;
use sentinel_core::capability::{
    AnsibleRequest, CapabilityError, ContainerDetails, DockerCall, PlaybookReport, Response,
};
use sentinel_core::grant::Glob;
use sentinel_core::http::{HttpMethod, HttpRequest, HttpResponse, HttpUrl};
use sentinel_core::mail::{MailReceipt, MailRequest};

/// A container as the host knows it, whatever the plugin called it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerIdentity {
    /// The full id, 64 hexadecimal digits.
    pub id: String,
    /// The name, without a leading slash.
    pub name: String,
    /// The labels.
    pub labels: Labels,
}

/// How a container is, for whoever verifies it.
#[derive(Debug, Clone)]
pub struct Vitals {
    /// What `inspect` says.
    pub details: ContainerDetails,
    /// How long after its start its health check may take until it has decided, by the
    /// container's own settings; none where that is not known.
    pub decides_within: Option<Duration>,
}

/// What became of an effect that began and has no end on record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// It was carried out; this is what it would have answered.
    Done(Response),
    /// It was not carried out, or not to its end; carrying out the same call is right.
    NotDone,
    /// Nothing tells; why, for people.
    Unknown(String),
}

/// Docker hosts by name.
#[async_trait]
pub trait DockerDriver: Send + Sync {
    /// Finds a container by name or id, so that the grant can be decided on what it
    /// is and not on what it was called. A malformed name is `invalid`, an unknown
    /// host `invalid` with the known ones named.
    async fn resolve(
        &self,
        host: &str,
        container: &str,
    ) -> Result<ContainerIdentity, CapabilityError>;

    /// Like [`Self::resolve`], with what `inspect` would say of the container, where the
    /// same answer of Docker holds both.
    async fn find(
        &self,
        host: &str,
        container: &str,
    ) -> Result<(ContainerIdentity, Option<Box<ContainerDetails>>), CapabilityError> {
        Ok((self.resolve(host, container).await?, None))
    }

    /// How a container is, by name or id. Takes no longer than `timeout`.
    async fn vitals(
        &self,
        host: &str,
        container: &str,
        timeout: Duration,
    ) -> Result<Vitals, CapabilityError> {
        let container = self.resolve(host, container).await?.id;
        let call = DockerCall::Inspect { container };
        match self.call(host, &call, timeout).await? {
            Response::Container(details) => Ok(Vitals {
                details: *details,
                decides_within: None,
            }),
            other => Err(CapabilityError::Failed(format!(
                "docker.inspect answered {other:?}"
            ))),
        }
    }

    /// Carries out `call`, whose container is a full id that `resolve` gave.
    /// `timeout` bounds each answer of Docker, not counting a call's own grace.
    async fn call(
        &self,
        host: &str,
        call: &DockerCall,
        timeout: Duration,
    ) -> Result<Response, CapabilityError>;

    /// Says whether `call` was carried out: an effect that began at `began_at` by the
    /// daemon's clock, and was cut off because the daemon was killed. Only looks, and
    /// waits as long as Docker may still be at work on it. Answers within `timeout`;
    /// what is not told by then is unknown.
    async fn settle(
        &self,
        host: &str,
        call: &DockerCall,
        began_at: Timestamp,
        timeout: Duration,
    ) -> Result<Settled, CapabilityError>;
}

/// What holds for a playbook whatever the plugin asked for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PlaybookScope {
    /// What the playbook is told of the incident; nothing where there is none.
    pub incident: Option<serde_json::Value>,
    /// The hosts that it may run on: patterns for their names, and groups by their very
    /// name. Empty stands for those that the playbook itself names.
    pub hosts: Vec<Glob>,
    /// What [`AnsibleDriver::identify`] said that the playbook is; none where it is not
    /// known.
    pub digest: Option<String>,
}

/// Ansible, on the machine that the daemon runs on.
#[async_trait]
pub trait AnsibleDriver: Send + Sync {
    /// The digest (SHA-256, in hexadecimal) of the file that `playbook` means and of all that
    /// it may use of the folder that it is in; none where nothing is known of files.
    async fn identify(&self, playbook: &str) -> Result<Option<String>, CapabilityError> {
        let _unknown = playbook;
        Ok(None)
    }

    /// Runs a playbook to its end, or ends its whole process group at `timeout`
    /// (`timed-out`). A playbook that ran and failed is a report, no error. One that is
    /// another than `scope` says, or that would run on other hosts, is not run.
    async fn run(
        &self,
        request: &AnsibleRequest,
        scope: &PlaybookScope,
        timeout: Duration,
    ) -> Result<PlaybookReport, CapabilityError>;
}

/// What plugins remember.
#[async_trait]
pub trait MemoryDriver: Send + Sync {
    /// Everything that earlier runs of the run's plugin left under its policy, by key.
    async fn load(&self) -> Result<BTreeMap<String, Vec<u8>>, CapabilityError>;
}

/// Nothing is remembered: where there is no past.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoPast;

#[async_trait]
impl MemoryDriver for NoPast {
    async fn load(&self) -> Result<BTreeMap<String, Vec<u8>>, CapabilityError> {
        Ok(BTreeMap::new())
    }
}

/// Whether a redirect may be followed: the method and the URL that it leads to.
pub type MayFollow = dyn Fn(HttpMethod, &HttpUrl) -> bool + Send + Sync;

/// HTTP, with the secrets that the host fills in.
#[async_trait]
pub trait HttpDriver: Send + Sync {
    /// The URL that the secret of this name holds, so that the grant can be decided on it;
    /// `invalid` where there is no such secret, or it holds none.
    fn url_of(&self, secret: &str) -> Result<HttpUrl, CapabilityError>;

    /// Sends `request`, whose URL and secrets are granted, and returns whatever is
    /// answered. A redirect is followed where `may_follow` says so, and is the answer
    /// where not. Takes no longer than `timeout`, nor than the request allows.
    async fn send(
        &self,
        request: &HttpRequest,
        may_follow: &MayFollow,
        timeout: Duration,
    ) -> Result<HttpResponse, CapabilityError>;
}

/// Mail, by the server of the configuration.
#[async_trait]
pub trait MailDriver: Send + Sync {
    /// Hands `request`, whose recipients are granted, to the server. Its message id is made of
    /// `id`, which is the same for a mail that is sent again. Takes no longer than `timeout`;
    /// `timed-out` where the server may have taken it all the same, and only there.
    async fn send(
        &self,
        request: &MailRequest,
        id: &str,
        timeout: Duration,
    ) -> Result<MailReceipt, CapabilityError>;
}

/// Sends no mail: where there is no server for it.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoMail;

#[async_trait]
impl MailDriver for NoMail {
    async fn send(
        &self,
        _: &MailRequest,
        _: &str,
        _: Duration,
    ) -> Result<MailReceipt, CapabilityError> {
        Err(CapabilityError::Failed(
            "there is no server to send mail by: the configuration names none under `mail: { server: … }`"
                .to_owned(),
        ))
    }
}

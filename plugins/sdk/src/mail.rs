//! Mail to people, by the server of the host's configuration, to recipients that the policy
//! grants. Who it is from is the host's to say.
//!
//! ```no_run
//! use sentinel_plugin::Failure;
//! use sentinel_plugin::mail::Message;
//!
//! fn tell(text: &str) -> Result<(), Failure> {
//!     Message::new("web is down", text)
//!         .to("oncall@example.com")
//!         .cc("web@example.com")
//!         .send()?;
//!     Ok(())
//! }
//! ```

pub use crate::bindings::sentinel::plugin::mail::{Message, Receipt, Refusal};

use crate::CapabilityError;
use crate::bindings::sentinel::plugin::mail as host;

impl Message {
    /// A mail to nobody yet; `subject` is one line of at most 512 bytes, `text` plain text of
    /// at most 64 KiB.
    #[must_use]
    pub fn new(subject: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            to: Vec::new(),
            cc: Vec::new(),
            subject: subject.into(),
            text: text.into(),
        }
    }

    /// Adds a recipient: an address such as `oncall@example.com`, without a name.
    #[must_use]
    pub fn to(mut self, address: impl Into<String>) -> Self {
        self.to.push(address.into());
        self
    }

    /// Adds somebody who gets a copy.
    #[must_use]
    pub fn cc(mut self, address: impl Into<String>) -> Self {
        self.cc.push(address.into());
        self
    }

    /// Effect: hands the mail to the server. `Unavailable` where it took nothing and may do
    /// so later, `Failed` where it will not. Of several recipients it may have refused some:
    /// the receipt names them.
    pub fn send(&self) -> Result<Receipt, CapabilityError> {
        Ok(host::send(self)?)
    }
}

//! What the endpoints' alerts have in common: how one is read, within its bounds.

use sentinel_core::alert::{Fingerprint, Labels, is_urgent};
use sentinel_core::bounds::{self, Annotations, OutOfBounds, quoted};

use super::lax::{self, Kind, Scalar};
use super::malformed::Wrong;

/// The fields of an alert that are of interest, as they are written.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Fields<'a> {
    pub(crate) status: Option<&'a str>,
    pub(crate) labels: Option<&'a str>,
    pub(crate) annotations: Option<&'a str>,
    pub(crate) starts_at: Option<&'a str>,
    pub(crate) ends_at: Option<&'a str>,
    pub(crate) generator_url: Option<&'a str>,
    pub(crate) fingerprint: Option<&'a str>,
}

impl<'a> Fields<'a> {
    /// Those of `alert`, which is a part of `text`.
    pub(crate) fn of(text: &str, alert: &'a str) -> Result<Self, Wrong> {
        let kind = Kind::of(alert);
        if kind != Kind::Object {
            let message = format!("expected an alert, which is an object, and found {kind}");
            return Err(Wrong::with(text, alert, message));
        }
        let mut fields = Self::default();
        lax::pairs(alert, |key, value| {
            let all: [(&str, &mut Option<&'a str>); 7] = [
                ("status", &mut fields.status),
                ("labels", &mut fields.labels),
                ("annotations", &mut fields.annotations),
                ("startsAt", &mut fields.starts_at),
                ("endsAt", &mut fields.ends_at),
                ("generatorURL", &mut fields.generator_url),
                ("fingerprint", &mut fields.fingerprint),
            ];
            for (name, field) in all {
                if lax::is_named(key, name) {
                    *field = Some(value);
                }
            }
            true
        });
        Ok(fields)
    }

    /// The labels: they are the alert's identity, so they are whole. A value that is null or
    /// empty counts as absent, as everywhere in Prometheus.
    pub(crate) fn labels(&self, text: &str, alert: &str) -> Result<Labels, Wrong> {
        let wrong = |part: &str, message: String| Err(Wrong::with(text, part, message));
        let Some(raw) = self.labels else {
            return wrong(alert, "the field `labels` is missing".to_owned());
        };
        let kind = Kind::of(raw);
        if !matches!(kind, Kind::Object | Kind::Null) {
            return wrong(
                raw,
                format!("`labels`: expected an object, and found {kind}"),
            );
        }
        let mut labels = Labels::new();
        let mut error = None;
        lax::pairs(raw, |key, value| {
            if let Err(message) = label(&mut labels, key, value) {
                error = Some(Wrong::with(text, key, message));
            }
            error.is_none()
        });
        if let Some(error) = error {
            return Err(error);
        }
        if labels.is_empty() {
            return wrong(raw, "an alert has no labels".to_owned());
        }
        if let Err(error) = bounds::check_labels(&labels) {
            return wrong(raw, error.to_string());
        }
        Ok(labels)
    }

    /// The annotations, and whether something of them was cut off. They decide nothing, so
    /// they may hold anything.
    pub(crate) fn annotations(&self) -> (Labels, bool) {
        let mut annotations = Annotations::default();
        lax::pairs(self.annotations.unwrap_or_default(), |key, value| {
            let (name, _) = lax::string(key, bounds::NAME);
            match lax::scalar(value, bounds::ANNOTATION) {
                Scalar::Absent => annotations.remove(&name),
                Scalar::Text(text) | Scalar::Long(text) => annotations.put(name, text),
                Scalar::Compound => {
                    let end = value.floor_char_boundary(bounds::ANNOTATION + 1);
                    let text = value.get(..end).unwrap_or_default();
                    annotations.put(name, text.to_owned());
                }
            }
            true
        });
        annotations.finish()
    }

    /// The link to what raised it.
    pub(crate) fn link(&self) -> Option<String> {
        let raw = self
            .generator_url
            .filter(|raw| Kind::of(raw) == Kind::Text)?;
        let (link, all) = lax::string(raw, bounds::LINK);
        (all && !link.is_empty()).then_some(link)
    }

    /// The fingerprint that the sender gave, or that of the labels.
    pub(crate) fn fingerprint(&self, labels: &Labels) -> Fingerprint {
        let given = self
            .fingerprint
            .map(|raw| lax::scalar(raw, bounds::FINGERPRINT));
        match given {
            Some(Scalar::Text(given)) if !given.is_empty() => Fingerprint(given),
            _ => Fingerprint::of(labels),
        }
    }
}

/// Takes one label in.
fn label(labels: &mut Labels, key: &str, value: &str) -> Result<(), String> {
    let (name, all) = lax::string(key, bounds::NAME);
    if !all {
        let length = key.len();
        return Err(OutOfBounds::Name { name, length }.to_string());
    }
    match lax::scalar(value, bounds::LABEL) {
        Scalar::Text(value) if name.is_empty() && !value.is_empty() => {
            return Err(format!(
                "a label without a name has the value `{}`",
                quoted(&value)
            ));
        }
        Scalar::Text(value) if !value.is_empty() => {
            labels.insert(name, value);
        }
        Scalar::Absent | Scalar::Text(_) => {
            labels.remove(&name);
        }
        Scalar::Long(_) => {
            let length = value.len();
            return Err(OutOfBounds::Value { name, length }.to_string());
        }
        Scalar::Compound => {
            return Err(format!(
                "label `{}`: expected a text, and found {}",
                quoted(&name),
                Kind::of(value)
            ));
        }
    }
    // Before all of them are in memory.
    if labels.len() > bounds::COUNT {
        return Err(OutOfBounds::Count.to_string());
    }
    Ok(())
}

/// Whether a value that is refused as an alert says that somebody should be woken.
pub(crate) fn cries(alert: &str) -> bool {
    let mut urgent = false;
    lax::pairs(alert, |key, value| {
        if lax::is_named(key, "labels") {
            lax::pairs(value, |key, value| {
                if key == "\"severity\"" {
                    let (severity, _) = lax::string(value, 20);
                    urgent = is_urgent(&severity);
                }
                true
            });
        }
        true
    });
    urgent
}

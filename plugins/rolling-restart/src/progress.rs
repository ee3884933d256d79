//! How far a rolling restart has come.

/// The containers by name, and what has become of each.
pub(crate) struct Progress<'a> {
    containers: Vec<(&'a str, Stage)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Not touched.
    Waiting,
    /// Restarted, and not seen to work.
    Restarted,
    /// Restarted, and works.
    Done,
}

impl<'a> Progress<'a> {
    pub(crate) fn new(names: &'a [String]) -> Self {
        Self {
            containers: names
                .iter()
                .map(|name| (name.as_str(), Stage::Waiting))
                .collect(),
        }
    }

    pub(crate) fn restarted(&mut self, name: &str) {
        self.set(name, Stage::Restarted);
    }

    pub(crate) fn works(&mut self, name: &str) {
        self.set(name, Stage::Done);
    }

    fn set(&mut self, name: &str, stage: Stage) {
        for (_, old) in self.containers.iter_mut().filter(|(of, _)| *of == name) {
            *old = stage;
        }
    }

    /// For people: which are done, and which are not.
    pub(crate) fn tell(&self) -> String {
        let of = |wanted: Stage| {
            let names: Vec<&str> = self
                .containers
                .iter()
                .filter(|(_, stage)| *stage == wanted)
                .map(|(name, _)| *name)
                .collect();
            names
        };
        let mut parts = vec![format!("done: {}", names(&of(Stage::Done)))];
        let unseen = of(Stage::Restarted);
        if !unseen.is_empty() {
            parts.push(format!(
                "restarted and not seen to work: {}",
                names(&unseen)
            ));
        }
        parts.push(format!("not done: {}", names(&of(Stage::Waiting))));
        parts.join("; ")
    }
}

/// Names in a row, or `none`.
pub(crate) fn names<T: AsRef<str>>(names: &[T]) -> String {
    if names.is_empty() {
        return "none".to_owned();
    }
    let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_container_is_accounted_for() {
        let all: Vec<String> = ["a", "b", "c", "d"].map(str::to_owned).to_vec();
        let mut progress = Progress::new(&all);
        assert_eq!(progress.tell(), "done: none; not done: a, b, c, d");
        progress.restarted("a");
        progress.works("a");
        progress.restarted("b");
        assert_eq!(
            progress.tell(),
            "done: a; restarted and not seen to work: b; not done: c, d"
        );
    }
}

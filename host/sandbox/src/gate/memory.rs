//! What a run remembers, and what it leaves to remember.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use sentinel_core::capability::{
    Blob, CapabilityError, MEMORY_KEY, MEMORY_TOTAL, MEMORY_VALUE, MemoryCall, Response,
};
use sentinel_core::event::CallResult;
use tokio::sync::OnceCell;

/// A plugin's memory as one run sees it.
#[derive(Default)]
pub(super) struct Memory {
    /// What was there when the run first asked.
    kept: OnceCell<BTreeMap<String, Vec<u8>>>,
    /// What the run has set, and what it has forgotten.
    changes: Mutex<BTreeMap<String, Option<Blob>>>,
}

impl Memory {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Option<Blob>>> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the run leaves behind.
    pub(super) fn changes(&self) -> BTreeMap<String, Option<Blob>> {
        self.lock().clone()
    }

    /// Takes in what a call on record changed.
    pub(super) fn apply(&self, asked: &MemoryCall) {
        match asked {
            MemoryCall::Set { key, value } => {
                self.lock().insert(key.clone(), Some(value.clone()));
            }
            MemoryCall::Forget { key } => {
                self.lock().insert(key.clone(), None);
            }
            MemoryCall::Get { .. } | MemoryCall::Keys { .. } => {}
        }
    }

    /// Answers a call; `load` says what is kept, and is asked once.
    pub(super) async fn call(
        &self,
        asked: &MemoryCall,
        load: impl Future<Output = Result<BTreeMap<String, Vec<u8>>, CapabilityError>>,
    ) -> CallResult {
        check(asked)?;
        let kept = self.kept.get_or_try_init(|| load).await?;
        match asked {
            MemoryCall::Get { key } => {
                let changes = self.lock();
                let value = match changes.get(key) {
                    Some(newer) => newer.clone(),
                    None => kept.get(key).cloned().map(Blob),
                };
                Ok(Response::Value(value))
            }
            MemoryCall::Keys { prefix } => {
                let changes = self.lock();
                let old = kept.keys().filter(|key| !changes.contains_key(*key));
                let new = changes.iter().filter(|(_, value)| value.is_some());
                let keys: BTreeSet<_> = old
                    .chain(new.map(|(key, _)| key))
                    .filter(|key| key.starts_with(prefix.as_str()))
                    .cloned()
                    .collect();
                Ok(Response::Keys(keys.into_iter().collect()))
            }
            MemoryCall::Set { key, value } => {
                let total = self.size_without(kept, key) + key.len() + value.0.len();
                if total > MEMORY_TOTAL {
                    return Err(CapabilityError::Denied(format!(
                        "a plugin may remember {} KiB under a policy, and this would make {} KiB",
                        MEMORY_TOTAL >> 10,
                        total.div_ceil(1 << 10)
                    )));
                }
                self.apply(asked);
                Ok(Response::Done)
            }
            MemoryCall::Forget { .. } => {
                self.apply(asked);
                Ok(Response::Done)
            }
        }
    }

    /// How many bytes everything but `key` takes.
    fn size_without(&self, kept: &BTreeMap<String, Vec<u8>>, key: &str) -> usize {
        let changes = self.lock();
        let old = kept
            .iter()
            .filter(|(name, _)| !changes.contains_key(*name))
            .map(|(name, value)| (name, value.len()));
        let new = changes
            .iter()
            .filter_map(|(name, value)| Some((name, value.as_ref()?.0.len())));
        old.chain(new)
            .filter(|(name, _)| *name != key)
            .map(|(name, size)| name.len() + size)
            .sum()
    }
}

fn check(asked: &MemoryCall) -> Result<(), CapabilityError> {
    let about = asked.about();
    let empty = about.is_empty() && !matches!(asked, MemoryCall::Keys { .. });
    if empty || about.len() > MEMORY_KEY {
        return Err(CapabilityError::Invalid(format!(
            "a key has 1 to {MEMORY_KEY} bytes, and this one {}",
            about.len()
        )));
    }
    if let MemoryCall::Set { value, .. } = asked
        && value.0.len() > MEMORY_VALUE
    {
        return Err(CapabilityError::Invalid(format!(
            "a value has at most {MEMORY_VALUE} bytes, and this one {}",
            value.0.len()
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept() -> BTreeMap<String, Vec<u8>> {
        BTreeMap::from([
            ("a".to_owned(), b"1".to_vec()),
            ("ab".to_owned(), b"2".to_vec()),
        ])
    }

    async fn call(memory: &Memory, asked: MemoryCall) -> CallResult {
        memory.call(&asked, async { Ok(kept()) }).await
    }

    fn get(key: &str) -> MemoryCall {
        MemoryCall::Get {
            key: key.to_owned(),
        }
    }

    fn set(key: &str, value: impl Into<Vec<u8>>) -> MemoryCall {
        MemoryCall::Set {
            key: key.to_owned(),
            value: Blob(value.into()),
        }
    }

    fn value(text: &str) -> Response {
        Response::Value(Some(Blob(text.as_bytes().to_vec())))
    }

    #[tokio::test]
    async fn a_run_sees_what_was_kept_and_what_it_changed() {
        let memory = Memory::default();
        assert_eq!(call(&memory, get("a")).await, Ok(value("1")));
        assert_eq!(call(&memory, get("x")).await, Ok(Response::Value(None)));
        call(&memory, set("a", "new")).await.unwrap();
        let forget = MemoryCall::Forget {
            key: "ab".to_owned(),
        };
        call(&memory, forget).await.unwrap();
        call(&memory, set("b", "3")).await.unwrap();
        assert_eq!(call(&memory, get("a")).await, Ok(value("new")));
        assert_eq!(call(&memory, get("ab")).await, Ok(Response::Value(None)));
        let keys = |prefix: &str| MemoryCall::Keys {
            prefix: prefix.to_owned(),
        };
        let all = Response::Keys(vec!["a".to_owned(), "b".to_owned()]);
        assert_eq!(call(&memory, keys("")).await, Ok(all));
        assert_eq!(
            call(&memory, keys("a")).await,
            Ok(Response::Keys(vec!["a".to_owned()]))
        );
        let changes = memory.changes();
        assert_eq!(changes.len(), 3);
        assert_eq!(changes["ab"], None);
    }

    #[tokio::test]
    async fn nothing_goes_past_its_bound() {
        let memory = Memory::default();
        for (asked, part) in [
            (get(""), "1 to 128 bytes"),
            (get(&"k".repeat(129)), "this one 129"),
            (set("k", vec![0; MEMORY_VALUE + 1]), "at most 16384 bytes"),
        ] {
            let error = call(&memory, asked).await.unwrap_err();
            assert!(error.to_string().contains(part), "{error}");
        }
        let mut stored = 0;
        let full = loop {
            match call(&memory, set(&format!("{stored}"), vec![0; MEMORY_VALUE])).await {
                Ok(_) => stored += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(stored, 15, "16 of 16 KiB, and the keys");
        assert!(full.to_string().contains("256 KiB"), "{full}");
        // What takes the place of another counts once.
        call(&memory, set("0", vec![1; MEMORY_VALUE]))
            .await
            .unwrap();
        assert_eq!(memory.changes().len(), 15);
    }
}

//! Room for others at the end of host calls.
//!
//! wasmtime looks whether a tick is over where a function begins and where a loop turns. A guest
//! whose code makes one host call after another without either would keep its thread for as long
//! as the host works for it, and no limit of time could end it. So the end of each host call is
//! looked at too.

use std::future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use wasmtime::{CallHook, CallHookHandler, StoreContextMut};

use crate::engine::Ticks;
use crate::guest::Guest;

/// When one guest last made room for others. Clones are of the same guest.
#[derive(Clone)]
pub(crate) struct Breath {
    ticks: Ticks,
    last: Arc<AtomicU64>,
}

impl Breath {
    pub(crate) fn new(ticks: Ticks) -> Self {
        let last = Arc::new(AtomicU64::new(ticks.now()));
        Self { ticks, last }
    }

    /// Does the guest's `work`; each poll of it is a breath.
    pub(crate) async fn watch<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        future::poll_fn(|context| {
            self.last.store(self.ticks.now(), Ordering::Relaxed);
            work.as_mut().poll(context)
        })
        .await
    }

    fn is_due(&self) -> bool {
        self.ticks.now() != self.last.load(Ordering::Relaxed)
    }
}

type Hooked<'a> = Pin<Box<dyn Future<Output = wasmtime::Result<()>> + Send + 'a>>;

/// The future of a hook that has nothing to do: of no size, so that boxing it costs nothing.
struct Nothing;

impl Future for Nothing {
    type Output = wasmtime::Result<()>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(Ok(()))
    }
}

impl CallHookHandler<Guest> for Breath {
    fn handle_call_event<'this, 'store, 'hook>(
        &'this self,
        mut store: StoreContextMut<'store, Guest>,
        hook: CallHook,
    ) -> Hooked<'hook>
    where
        'this: 'hook,
        'store: 'hook,
    {
        if !matches!(hook, CallHook::ReturningFromHost) || !self.is_due() {
            return Box::pin(Nothing);
        }
        Box::pin(async move {
            store.data_mut().tick()?;
            tokio::task::yield_now().await;
            store.set_epoch_deadline(1);
            Ok(())
        })
    }
}

//! Reads a body within bounds of size, memory and time.

use std::sync::Arc;

use axum::body::{Body, BodyDataStream, HttpBody as _};
use axum::http::Request;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::rejection::Rejection;
use crate::config::IntakeLimits;

/// What a body may hold before any of it has arrived.
const FIRST: usize = 64 << 10;

/// The whole body, and the permit for the memory that it takes; or why not.
pub(super) async fn read(
    request: Request<Body>,
    limits: &IntakeLimits,
    memory: &Arc<Semaphore>,
) -> Result<(Bytes, OwnedSemaphorePermit), Rejection> {
    let body = request.into_body();
    let too_large = || Rejection::TooLarge {
        limit: limits.body.to_string(),
    };
    if body.size_hint().lower() > limits.body.0 {
        drain(body.into_data_stream(), limits).await;
        return Err(too_large());
    }
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or_default();
    // What is announced is not yet there: the rest is taken as it arrives, so that idle
    // uploads hold up nobody.
    let mut permit = take(memory, announced.clamp(1, FIRST))?;
    let collect = async {
        let mut bytes = BytesMut::with_capacity(announced.min(FIRST));
        let mut chunks = body.into_data_stream();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|error| Rejection::BrokenOff(error.to_string()))?;
            bytes.extend_from_slice(&chunk);
            if bytes.len() as u64 > limits.body.0 {
                drop(bytes);
                drain(chunks, limits).await;
                return Err(too_large());
            }
            if let Some(more) = kib(bytes.len()).checked_sub(permit.num_permits() as u32)
                && more > 0
            {
                permit.merge(take(memory, (more as usize) << 10)?);
            }
        }
        Ok((bytes.freeze(), permit))
    };
    match tokio::time::timeout(limits.body_timeout, collect).await {
        Ok(read) => read,
        Err(_) => Err(Rejection::TooSlow(limits.body_timeout)),
    }
}

/// How much of a body that is too large is read on.
const DRAINED: usize = 64 << 20;

/// Reads on and keeps nothing, for a while: a client that is still sending when the
/// connection closes sees a broken pipe, and not why.
async fn drain(mut chunks: BodyDataStream, limits: &IntakeLimits) {
    let rest = async {
        let mut left = DRAINED;
        while let Some(Ok(chunk)) = chunks.next().await {
            match left.checked_sub(chunk.len()) {
                Some(fewer) => left = fewer,
                None => break,
            }
        }
    };
    if tokio::time::timeout(limits.body_timeout, rest)
        .await
        .is_err()
    {
        tracing::debug!("a body that is too large did not come to its end");
    }
}

fn kib(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(1 << 10)).unwrap_or(u32::MAX)
}

/// A place for so many bytes in what bodies may take together.
pub(super) fn take(
    memory: &Arc<Semaphore>,
    bytes: usize,
) -> Result<OwnedSemaphorePermit, Rejection> {
    memory
        .clone()
        .try_acquire_many_owned(kib(bytes))
        .map_err(|_| Rejection::Overloaded)
}

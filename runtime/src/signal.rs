//! A value that one side sends once and the other side looks at or awaits.
//!
//! wgpu answers through callbacks. On the web such a callback must wake a future; natively it
//! comes from inside `poll`, and the receiver only has to look. This serves both without threads.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

#[derive(Debug)]
struct State<T> {
    value: Option<T>,
    waker: Option<Waker>,
    closed: bool,
}

/// The sending end; dropped unused it tells the receiver that nothing will come.
#[derive(Debug)]
pub(crate) struct Sender<T>(Arc<Mutex<State<T>>>);

/// The receiving end.
#[derive(Debug)]
pub(crate) struct Receiver<T>(Arc<Mutex<State<T>>>);

/// The sender was dropped without sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Closed;

pub(crate) fn signal<T>() -> (Sender<T>, Receiver<T>) {
    let state = Arc::new(Mutex::new(State { value: None, waker: None, closed: false }));
    (Sender(Arc::clone(&state)), Receiver(state))
}

/// A panic elsewhere cannot leave the state half changed, so poisoning says nothing here.
fn lock<T>(state: &Mutex<State<T>>) -> MutexGuard<'_, State<T>> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T> Sender<T> {
    pub(crate) fn send(self, value: T) {
        lock(&self.0).value = Some(value);
        // The drop that follows wakes the receiver.
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let waker = {
            let mut state = lock(&self.0);
            state.closed = true;
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Receiver<T> {
    /// The value, if it is there already; `Err` if none will come.
    pub(crate) fn try_take(&self) -> Option<Result<T, Closed>> {
        let mut state = lock(&self.0);
        match state.value.take() {
            Some(value) => Some(Ok(value)),
            None if state.closed => Some(Err(Closed)),
            None => None,
        }
    }
}

impl<T> Future for Receiver<T> {
    type Output = Result<T, Closed>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = lock(&self.0);
        match state.value.take() {
            Some(value) => Poll::Ready(Ok(value)),
            None if state.closed => Poll::Ready(Err(Closed)),
            None => {
                state.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// Polls a future once. wgpu's native futures are ready at once; those of a browser are not, and
/// give `None`.
pub(crate) fn now<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = std::pin::pin!(future);
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_sent_is_taken_once() {
        let (sender, receiver) = signal();
        assert_eq!(receiver.try_take(), None, "nothing was sent yet");
        sender.send(7);
        assert_eq!(receiver.try_take(), Some(Ok(7)), "the value sent");
        assert_eq!(receiver.try_take(), Some(Err(Closed)), "it can be taken once only");
    }

    #[test]
    fn a_dropped_sender_wakes_the_receiver_with_an_error() {
        let (sender, receiver) = signal::<u32>();
        drop(sender);
        assert_eq!(now(receiver), Some(Err(Closed)), "a dropped sender closes the signal");
    }
}

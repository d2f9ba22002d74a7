//! Queues of a device (CUDA's streams): what is given to one is done in its order, beside that of the others.
//!
//! CubeCL would give every thread a queue of its own, and each queue has memory of its own, which it keeps: a
//! thread for each step, as of the sum of the gradients, is one more queue each time, up to 128 of them. So
//! all work goes to one queue, whatever the thread, but for what is named here.

/// Work that goes on beside what is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Queue {
    /// What is read while more is computed.
    Reads,
    /// What is written while more is computed.
    Writes,
}

impl Queue {
    /// Does `work`, all of which on a device goes to this queue.
    #[cfg(feature = "cube")]
    pub fn during<T>(self, work: impl FnOnce() -> T) -> T {
        // 0 is the queue that all threads share.
        let value = match self {
            Self::Reads => 1,
            Self::Writes => 2,
        };
        cubecl_environment::stream::StreamId { value }.executes(work)
    }

    /// Does `work`, all of which on a device goes to this queue.
    #[cfg(not(feature = "cube"))]
    pub fn during<T>(self, work: impl FnOnce() -> T) -> T {
        work()
    }
}

/// Gives all threads one queue from here on; a device is opened after this.
pub(super) fn share() {
    #[cfg(feature = "cube")]
    cubecl_environment::stream::set_policy(cubecl_environment::stream::StreamPolicy::Single);
}

#[cfg(all(test, feature = "cube"))]
mod tests {
    use std::thread;

    use cubecl_environment::stream::StreamId;

    use super::*;

    #[test]
    fn threads_share_a_queue_but_for_what_is_named() {
        share();
        let own = StreamId::current();
        let of_threads = [(); 3].map(|()| thread::spawn(StreamId::current).join().unwrap());
        assert_eq!(of_threads, [own; 3]);
        let named = [Queue::Reads, Queue::Writes].map(|queue| queue.during(StreamId::current));
        assert!(named[0] != named[1] && !named.contains(&own));
        let again = thread::spawn(|| Queue::Reads.during(StreamId::current)).join().unwrap();
        assert_eq!(again, named[0], "a thread of the next step has the same");
    }
}

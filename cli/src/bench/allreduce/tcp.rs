//! Bare TCP streams between neighbours, as the measure of what the machine can do.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// Bytes written and read at a time.
const PIECE: usize = 1 << 20;
/// For a neighbour to move a piece.
const PATIENCE: Duration = Duration::from_secs(60);

/// Streams to the next member and from the one before.
#[derive(Debug)]
pub(super) struct Neighbours {
    next: TcpStream,
    before: TcpStream,
}

impl Neighbours {
    /// Connects to `next` and waits for the member before.
    pub(super) fn meet(listener: &TcpListener, next: &str) -> io::Result<Self> {
        let next = TcpStream::connect(next)?;
        let (before, _) = listener.accept()?;
        for stream in [&next, &before] {
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
        }
        Ok(Self { next, before })
    }

    /// The same streams.
    pub(super) fn again(&self) -> io::Result<Self> {
        Ok(Self { next: self.next.try_clone()?, before: self.before.try_clone()? })
    }

    /// Sends `bytes` to the next member while as many come from the one before; how long it took.
    pub(super) fn exchange(self, bytes: u64) -> io::Result<Duration> {
        let Self { mut next, mut before } = self;
        let began = Instant::now();
        std::thread::scope(|scope| {
            let sending = scope.spawn(move || -> io::Result<()> {
                let piece = vec![1u8; PIECE];
                let mut left = bytes;
                while left > 0 {
                    let now = left.min(PIECE as u64);
                    next.write_all(&piece[..now as usize])?;
                    left -= now;
                }
                Ok(())
            });
            let mut piece = vec![0u8; PIECE];
            let mut left = bytes;
            while left > 0 {
                let most = left.min(PIECE as u64) as usize;
                match before.read(&mut piece[..most])? {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    now => left -= now as u64,
                }
            }
            // A panic of the thread is one of `write_all`, which has none.
            sending.join().unwrap_or(Err(io::ErrorKind::Other.into()))
        })?;
        Ok(began.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_go_both_ways() {
        let listeners = [0, 1].map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port"));
        let address = |at: usize| listeners[at].local_addr().expect("bound").to_string();
        let (first, second) = (address(0), address(1));
        let both = std::thread::scope(|scope| {
            let other = scope.spawn(|| Neighbours::meet(&listeners[1], &first)?.exchange(3 << 20));
            let own = Neighbours::meet(&listeners[0], &second).and_then(|both| both.exchange(3 << 20));
            [own, other.join().expect("no panic")]
        });
        assert!(both.iter().all(Result::is_ok), "{both:?}");
    }
}

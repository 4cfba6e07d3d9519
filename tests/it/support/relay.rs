//! A link between two processes that a test can cut, or let fall silent without a word to either end.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// What happens to what comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Open,
    /// Every connection is closed at once.
    Cut,
    /// Connections stay open and nothing passes: a router that dropped its state.
    Silent,
}

pub struct Relay {
    port: u16,
    links: Arc<Links>,
}

struct Links {
    target: u16,
    state: Mutex<(Mode, Vec<Arc<Link>>)>,
}

/// One connection, with both of its ends.
struct Link {
    ends: [TcpStream; 2],
    silent: AtomicBool,
}

impl Relay {
    /// Relays to a port of this machine, for as long as the test runs.
    pub fn to(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let links = Arc::new(Links {
            target,
            state: Mutex::new((Mode::Open, Vec::new())),
        });
        let of_thread = links.clone();
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                of_thread.accept(socket);
            }
        });
        Self { port, links }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Closes every connection, and each new one too.
    pub fn cut(&self) {
        let mut state = self.links.state.lock().unwrap();
        state.0 = Mode::Cut;
        for link in state.1.drain(..) {
            link.close();
        }
    }

    /// From now on nothing passes and nothing is closed. Connections that are open now stay dead.
    pub fn fall_silent(&self) {
        let mut state = self.links.state.lock().unwrap();
        state.0 = Mode::Silent;
        for link in &state.1 {
            link.silent.store(true, Ordering::SeqCst);
        }
    }

    /// New connections pass again.
    pub fn mend(&self) {
        self.links.state.lock().unwrap().0 = Mode::Open;
    }
}

impl Links {
    fn accept(&self, socket: TcpStream) {
        let mut state = self.state.lock().unwrap();
        if state.0 == Mode::Cut {
            return;
        }
        // Where the other end does not listen this one hears it, as without a relay.
        let Ok(other) = TcpStream::connect(("127.0.0.1", self.target)) else {
            return;
        };
        let silent = AtomicBool::new(state.0 == Mode::Silent);
        for end in [&socket, &other] {
            end.set_nodelay(true).unwrap();
        }
        let ends = [socket, other];
        let link = Arc::new(Link { ends, silent });
        state.1.push(link.clone());
        for (from, to) in [(0, 1), (1, 0)] {
            let link = link.clone();
            std::thread::spawn(move || link.pump(from, to));
        }
    }
}

impl Link {
    fn pump(&self, from: usize, to: usize) {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(length @ 1..) = (&self.ends[from]).read(&mut buffer) {
            // Swallowed, and the sockets stay open: `Links` holds them.
            if self.silent.load(Ordering::SeqCst) {
                continue;
            }
            if (&self.ends[to]).write_all(&buffer[..length]).is_err() {
                break;
            }
        }
        if !self.silent.load(Ordering::SeqCst) {
            self.close();
        }
    }

    fn close(&self) {
        for end in &self.ends {
            let _ = end.shutdown(Shutdown::Both);
        }
    }
}

//! A road to the server that can be cut, and on which everything can be made to wait.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

/// A running road.
#[derive(Debug, Clone)]
pub struct Road {
    address: SocketAddr,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    server: SocketAddr,
    traffic: Mutex<Traffic>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Traffic {
    is_stalled: bool,
    /// Both ends of the connections that were made since the last cut.
    open: Vec<TcpStream>,
}

impl Road {
    /// A road to `server`, on a free port of the loopback interface until the test program ends.
    pub fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("the port");
        let state = Arc::new(State { server, traffic: Mutex::default(), changed: Condvar::new() });
        let taken = Arc::clone(&state);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let _ = taken.serve(client);
            }
        });
        Self { address, state }
    }

    /// Where it begins.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Breaks every connection, with whatever is on its way.
    pub fn cut(&self) {
        for end in std::mem::take(&mut self.traffic().open) {
            let _ = end.shutdown(Shutdown::Both);
        }
        self.state.changed.notify_all();
    }

    /// From now on everything waits where it is, or goes on.
    pub fn stall(&self, is_stalled: bool) {
        self.traffic().is_stalled = is_stalled;
        self.state.changed.notify_all();
    }

    fn traffic(&self) -> std::sync::MutexGuard<'_, Traffic> {
        self.state.traffic.lock().expect("the traffic")
    }
}

impl State {
    fn serve(self: &Arc<Self>, client: TcpStream) -> io::Result<()> {
        // Where nobody listens, who asked finds the connection closed.
        let server = TcpStream::connect(self.server)?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let ends = [client.try_clone()?, server.try_clone()?];
        self.traffic.lock().expect("the traffic").open.extend(ends);
        for (from, to) in [(client.try_clone()?, server.try_clone()?), (server, client)] {
            let state = Arc::clone(self);
            thread::spawn(move || state.carry(&from, &to));
        }
        Ok(())
    }

    /// What is closed at one end is closed at the other.
    fn carry(&self, mut from: &TcpStream, mut to: &TcpStream) {
        let mut some = vec![0; 16 * 1024];
        while let Ok(count) = from.read(&mut some) {
            let traffic = self.traffic.lock().expect("the traffic");
            drop(self.changed.wait_while(traffic, |traffic| traffic.is_stalled).expect("the traffic"));
            if count == 0 || to.write_all(&some[..count]).is_err() {
                break;
            }
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }
}

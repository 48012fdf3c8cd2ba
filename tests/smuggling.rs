//! Behind a real nginx no part of a message is ever taken for another message, and nobody gets another's answer.

#[path = "../server/tests/http/shapes.rs"]
mod shapes;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use pcmcache_tests::nginx::Plain;
use pcmcache_tests::{Scratch, Server, http, turn};
use shapes::{HIDDEN, Shape, Verdict, shapes, shapes_of_http2, statuses_of_http2};

/// Sends it all, and reads until nginx has enough.
fn answer(nginx: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(nginx).expect("a connection to nginx");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    // A reset after the answer is no failure of the answer.
    let _ = stream.read_to_end(&mut answer);
    answer
}

/// Asks by way of nginx what has one answer: over its kept connections nobody's else may come.
fn ask_honestly(nginx: &Plain, after: &Shape) {
    for _ in 0..3 {
        let answer = http::get(nginx.http1, "/healthz");
        assert_eq!((answer.status, answer.text().as_str()), (200, "ok\n"), "after {}", after.name);
    }
}

/// How often it is asked for, and told, what is hidden.
fn count(text: &str) -> usize {
    text.matches(HIDDEN).count()
}

/// Nginx may take the request behind a message for one, where it finds that the message has ended: then the server is asked
/// for it once, and the client that sent it is told. A request that the server sees and nginx does not is answered to nobody,
/// or to somebody else.
#[test]
fn nothing_is_smuggled_through_nginx() {
    let _turn = turn::beside_others();
    let scratch = Scratch::new("smuggling");
    let server = Server::start_as(&scratch, ["--behind-proxy", "--log", "pcmcache_server=debug"]);
    let nginx = Plain::before(&scratch, server.address());
    let (mut faults, mut passed_on) = (Vec::new(), 0);
    for shape in shapes() {
        let before = count(&server.log());
        let answer = answer(nginx.http1, &shape.bytes);
        ask_honestly(&nginx, &shape);
        let (asked, told) = (count(&server.log()) - before, count(&String::from_utf8_lossy(&answer)));
        passed_on += asked;
        if asked != told || asked > 1 {
            faults.push(format!("{}: asked {asked} times, told {told} times", shape.name));
        }
    }
    for shape in shapes_of_http2() {
        let before = count(&server.log());
        let statuses = statuses_of_http2(&answer(nginx.http2, &shape.bytes));
        ask_honestly(&nginx, &shape);
        let expected = match shape.verdict {
            Verdict::Read(status) => statuses == [status],
            Verdict::Refused => statuses.len() <= 1,
        };
        if count(&server.log()) != before || !expected {
            faults.push(format!("{}: {statuses:?}", shape.name));
        }
    }
    println!("{passed_on} requests were taken for requests of their own by nginx too");
    assert!(faults.is_empty(), "{}\n{}", faults.join("\n"), nginx.log());
    assert!(passed_on > 0, "the server's log does not tell what it was asked for");
}

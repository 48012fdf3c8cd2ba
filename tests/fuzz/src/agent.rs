//! What lies at an agent's socket answers a knock: it is taken for the agent only if it says what it serves.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::sync::OnceLock;

use pcmcache::remote::agent::{Agent, Knock};
use pcmcache::settings::{Settings, When};

use crate::scratch;

const URL: &str = "https://cache.example";

struct Place {
    agent: Agent,
    /// What it is asked to say.
    serves: String,
    listener: UnixListener,
}

pub(crate) fn run(input: &[u8]) {
    static PLACE: OnceLock<Place> = OnceLock::new();
    let Place { agent, serves, listener } = PLACE.get_or_init(place);
    let said = match str::from_utf8(input) {
        // A digest is too much to guess.
        Ok(text) => text.replace("{serves}", serves).into_bytes(),
        Err(_) => input.to_vec(),
    };
    let knock = std::thread::scope(|scope| {
        scope.spawn(|| answer(listener, &said));
        agent.knock()
    });
    match knock {
        Knock::Answered(words) => {
            let said = String::from_utf8(said).expect("only text is understood");
            let (head, body) = said.split_once("\r\n\r\n").expect("a head and a body");
            assert!(head.starts_with("HTTP/1.1 200 ") && body.starts_with(serves) && body.contains(&words));
        }
        Knock::Refused => {}
        // The host is so busy that the answer came too late.
        Knock::Silent => {}
        Knock::Absent | Knock::Stopped => panic!("it answered, and is taken for {knock:?}"),
    }
}

fn place() -> Place {
    let dir = scratch::directory("agent");
    let settings = Settings { dir: dir.clone(), agent: When::On, ..Settings::from_environment(&|_| None) };
    let agent = Agent::wanted(&settings, URL, &dir).expect("it is wanted");
    fs_err::create_dir_all(dir.join("agents")).expect("a directory");
    let listener = UnixListener::bind(agent.address().expect("a place").path()).expect("a socket");
    let shown = format!("{agent:?}");
    let (_, serves) = shown.split_once("Digest(").expect("it shows what it serves");
    Place { serves: serves[..64].to_owned(), agent, listener }
}

fn answer(listener: &UnixListener, said: &[u8]) {
    let (mut stream, _) = listener.accept().expect("a knock");
    let mut asked = Vec::new();
    while !asked.ends_with(b"\r\n\r\n") {
        let mut some = [0; 512];
        match stream.read(&mut some) {
            Ok(count) if count > 0 => asked.extend_from_slice(&some[..count]),
            _ => break,
        }
    }
    // Who has heard enough hangs up.
    let _ = stream.write_all(said);
}

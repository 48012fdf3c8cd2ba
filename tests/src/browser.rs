//! A real browser that a test looks through: Chromium, driven by a small script over a pipe (`tests/browser/driver.mjs`).
//! Every wait is bounded, in the script and here.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::tool;

/// Longer than the script waits for anything.
const PATIENCE: Duration = Duration::from_secs(90);

/// A browser with one page at a time.
#[derive(Debug)]
pub struct Browser {
    child: Child,
    /// `None` once it was told to end.
    commands: Option<ChildStdin>,
    answers: Receiver<String>,
}

/// How someone looks at a page.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    /// The window, in dots.
    pub window: (u32, u32),
    /// `light` or `dark`.
    pub scheme: &'static str,
}

/// A desk's window.
pub const DESK: (u32, u32) = (1280, 900);
/// A phone's.
pub const PHONE: (u32, u32) = (390, 844);

/// Something that axe found.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Found {
    /// `minor`, `moderate`, `serious` or `critical`.
    pub impact: String,
    /// What, and where.
    pub what: String,
}

/// What a page did beside being looked at.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Told {
    /// On the console.
    pub said: Vec<String>,
    /// Whom it asked.
    pub hosts: Vec<String>,
}

impl Browser {
    /// Starts one.
    pub fn start() -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("browser/driver.mjs");
        let mut child = Command::new(tool::node())
            .arg(script)
            .args([tool::chromium(), tool::node_modules()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node");
        let (commands, output) = (child.stdin.take(), child.stdout.take().expect("a pipe"));
        let (lines, answers) = channel();
        std::thread::spawn(move || {
            let answers = BufReader::new(output).lines().map_while(Result::ok);
            let _ = answers.map(|line| lines.send(line)).take_while(Result::is_ok).count();
        });
        Self { child, commands, answers }
    }

    #[track_caller]
    fn ask<T: DeserializeOwned>(&mut self, command: &str, mut how: Value) -> T {
        how["command"] = command.into();
        let commands = self.commands.as_mut().expect("a pipe");
        writeln!(commands, "{how}").expect("the browser's script listens");
        let answer = self.answers.recv_timeout(PATIENCE).unwrap_or_else(|error| panic!("{how}: {error}"));
        let mut answer: Value = serde_json::from_str(&answer).expect("JSON from the browser's script");
        assert!(answer.get("error").is_none(), "{how}: {}", answer["error"]);
        serde_json::from_value(answer["ok"].take()).unwrap_or_else(|error| panic!("{how}: {error}"))
    }

    /// Opens a page, as someone new.
    #[track_caller]
    pub fn open(&mut self, url: &str, look: Look) {
        let ((width, height), scheme) = (look.window, look.scheme);
        self.ask("open", json!({ "url": url, "width": width, "height": height, "scheme": scheme }))
    }

    /// What is written at a place, once `text` is part of it.
    #[track_caller]
    pub fn sees(&mut self, at: &str, text: &str) -> String {
        self.ask("sees", json!({ "at": at, "text": text }))
    }

    /// Waits until `text` is not to be seen there any more.
    #[track_caller]
    pub fn misses(&mut self, at: &str, text: &str) {
        self.ask("misses", json!({ "at": at, "text": text }))
    }

    /// What is written at each such place.
    #[track_caller]
    pub fn read(&mut self, at: &str) -> Vec<String> {
        self.ask("read", json!({ "at": at }))
    }

    /// Presses these keys, one after the other.
    #[track_caller]
    pub fn press(&mut self, keys: &[&str]) {
        self.ask("press", json!({ "keys": keys }))
    }

    /// Types a text.
    #[track_caller]
    pub fn type_text(&mut self, text: &str) {
        self.ask("type", json!({ "text": text }))
    }

    /// What has the keyboard.
    #[track_caller]
    pub fn focused(&mut self) -> String {
        self.ask("focused", json!({}))
    }

    /// Which part of each such picture is painted: 0 is nothing, 1 is all.
    #[track_caller]
    pub fn painted(&mut self, at: &str) -> Vec<f64> {
        self.ask("painted", json!({ "at": at }))
    }

    /// The colour of the ground there, as CSS has it.
    #[track_caller]
    pub fn colour(&mut self, at: &str) -> String {
        self.ask("colour", json!({ "at": at }))
    }

    /// By how many dots the page is wider than its window.
    #[track_caller]
    pub fn overflow(&mut self) -> i64 {
        self.ask("overflow", json!({}))
    }

    /// Keeps a picture of the whole page.
    #[track_caller]
    pub fn shot(&mut self, path: &Path) {
        self.ask("shot", json!({ "path": path }))
    }

    /// What an accessibility checker finds.
    #[track_caller]
    pub fn axe(&mut self) -> Vec<Found> {
        self.ask("axe", json!({}))
    }

    /// What pages said and whom they asked since the last time.
    #[track_caller]
    pub fn told(&mut self) -> Told {
        self.ask("told", json!({}))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // At the end of its commands the script ends the browser, and then itself.
        drop(self.commands.take());
        let start = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && start.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where pictures of this run are kept.
pub fn pictures() -> PathBuf {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(target, PathBuf::from);
    let pictures = target.join("dashboard");
    fs_err::create_dir_all(&pictures).expect("a directory for pictures");
    pictures.canonicalize().expect("the directory of the pictures")
}

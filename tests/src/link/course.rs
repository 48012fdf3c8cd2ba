//! One connection's course: where in which request it is. As much of HTTP/1.1 as that takes; what is none passes.

use std::sync::{Mutex, MutexGuard};

use super::fault::{At, Script, What};

/// No head of ours is as long.
const LONGEST_HEAD: usize = 64 * 1024;

/// What becomes of some bytes.
pub(super) enum Step {
    Pass(Vec<u8>),
    Act(What),
    /// A whole request that a later one overtakes.
    Behind(Vec<u8>),
    /// A whole request that goes twice; whether the copy goes first.
    Twice(Vec<u8>, bool),
    /// This to the client, in place of an answer.
    Answered(String),
}

/// Where a connection is.
pub(super) struct Course<'a> {
    script: &'a Script,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What happens to the connection, and to the request that is under way.
    to_connection: Option<(At, What)>,
    to_request: Option<(At, What)>,
    /// The bytes that went up and came down.
    counts: (usize, usize),
    up: Up,
    /// What is held of the request, if it goes as a whole.
    held: Option<Vec<u8>>,
    /// The head of the answer as far as it came; then how much of the body.
    answer: Vec<u8>,
    answer_body: Option<usize>,
    lose_up: bool,
    lose_down: bool,
}

/// What comes next from the client.
enum Up {
    Head(Vec<u8>),
    /// As much is left of a body, and as much of it came.
    Body(usize, usize),
    /// Something that is no HTTP/1.1.
    Opaque,
}

impl Default for Up {
    fn default() -> Self {
        Self::Head(Vec::new())
    }
}

impl<'a> Course<'a> {
    pub(super) fn new(script: &'a Script) -> Self {
        let state = State { to_connection: script.on_connection(), ..State::default() };
        Self { script, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("the course")
    }

    /// What happens as it begins.
    pub(super) fn begins(&self) -> Option<What> {
        let mut state = self.state();
        let what = state.to_connection.filter(|(at, _)| *at == At::Connect)?.1;
        state.to_connection = None;
        self.act(&mut state, what);
        Some(what)
    }

    fn act(&self, state: &mut State, what: What) -> Step {
        self.script.happened();
        state.lose_up |= matches!(what, What::LoseUp | What::LoseBoth);
        state.lose_down |= matches!(what, What::LoseDown | What::LoseBoth);
        Step::Act(what)
    }

    /// Whether what the client sends is lost, its end included.
    pub(super) fn loses_up(&self) -> bool {
        self.state().lose_up
    }

    /// Whether what the server sends is lost, its end included.
    pub(super) fn loses_down(&self) -> bool {
        self.state().lose_down
    }

    /// What becomes of what the client sent.
    pub(super) fn up(&self, bytes: &[u8]) -> Vec<Step> {
        let (mut state, mut steps) = (self.state(), Vec::new());
        let state = &mut *state;
        let mut rest = self.by_count(state, bytes, true, &mut steps);
        while !rest.is_empty() {
            rest = match &mut state.up {
                Up::Opaque => {
                    self.pass(state, rest, &mut steps);
                    &[]
                }
                Up::Head(head) => {
                    let before = head.len();
                    head.extend_from_slice(rest);
                    let end = head.windows(4).position(|four| four == b"\r\n\r\n").map(|end| end + 4);
                    let is_none = head.len() > LONGEST_HEAD
                        || head.first().is_some_and(|byte| !byte.is_ascii_uppercase());
                    match end {
                        Some(end) => {
                            head.truncate(end);
                            let head = std::mem::take(head);
                            self.heard(state, head, &mut steps);
                            &rest[end - before..]
                        }
                        None if is_none => {
                            let bytes = std::mem::take(head);
                            state.up = Up::Opaque;
                            self.pass(state, &bytes, &mut steps);
                            &[]
                        }
                        None => &[],
                    }
                }
                Up::Body(left, came) => {
                    let (part, more) = rest.split_at(rest.len().min(*left));
                    let (before, is_whole) = (*came, part.len() == *left);
                    (*left, *came) = (*left - part.len(), *came + part.len());
                    self.body(state, part, before, &mut steps);
                    if is_whole {
                        self.whole(state, &mut steps);
                    }
                    more
                }
            };
        }
        steps
    }

    /// A request's head is there.
    fn heard(&self, state: &mut State, head: Vec<u8>, steps: &mut Vec<Step>) {
        let text = String::from_utf8_lossy(&head).to_ascii_lowercase();
        let length = text.lines().find_map(|line| line.strip_prefix("content-length:"));
        let length = length.and_then(|length| length.trim().parse().ok()).unwrap_or(0);
        let line = String::from_utf8_lossy(&head).into_owned();
        let mut words = line.split(' ');
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        state.to_request = self.script.on_request(method, path);
        (state.answer, state.answer_body) = (Vec::new(), None);
        let is_held = |what| matches!(what, What::Overtaken | What::Twice { .. } | What::Unavailable(_));
        state.up = Up::Body(length, 0);
        match state.to_request {
            Some((_, what)) if is_held(what) => state.held = Some(head),
            Some((At::RequestHead, what)) => {
                self.pass(state, &head, steps);
                steps.push(self.act(state, what));
            }
            _ => self.pass(state, &head, steps),
        }
        if length == 0 {
            self.whole(state, steps);
        }
    }

    /// Part of a request's body, `before` bytes of which came before.
    fn body(&self, state: &mut State, part: &[u8], before: usize, steps: &mut Vec<Step>) {
        if let Some(held) = &mut state.held {
            held.extend_from_slice(part);
            return;
        }
        match state.to_request {
            Some((At::RequestBody(at), what)) if at < before + part.len() => {
                let (first, last) = part.split_at(at.saturating_sub(before));
                state.to_request = None;
                self.pass(state, first, steps);
                steps.push(self.act(state, what));
                self.pass(state, last, steps);
            }
            _ => self.pass(state, part, steps),
        }
    }

    /// The request is whole.
    fn whole(&self, state: &mut State, steps: &mut Vec<Step>) {
        state.up = Up::default();
        let Some(held) = state.held.take() else { return };
        self.script.happened();
        match state.to_request.take() {
            Some((_, What::Twice { copy_first })) => steps.push(Step::Twice(held, copy_first)),
            Some((_, What::Unavailable(after))) => steps.push(Step::Answered(format!(
                "HTTP/1.1 503 Service Unavailable\r\nRetry-After: {after}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
            ))),
            _ => steps.push(Step::Behind(held)),
        }
    }

    /// What becomes of what the server sent.
    pub(super) fn down(&self, bytes: &[u8]) -> Vec<Step> {
        let (mut state, mut steps) = (self.state(), Vec::new());
        let state = &mut *state;
        let rest = self.by_count(state, bytes, false, &mut steps).to_vec();
        let mut rest = &rest[..];
        if state.answer.is_empty() {
            self.script.answered();
            if let Some((At::Answer, what)) = state.to_request {
                state.to_request = None;
                steps.push(self.act(state, what));
            }
        }
        while !rest.is_empty() {
            // The head, byte by byte; it is short.
            let (count, limit) = match (state.answer_body, state.to_request) {
                (None, Some((At::AnswerHead(at), _))) if state.answer.len() >= at => (0, true),
                (None, _) => (1, false),
                (Some(came), Some((At::AnswerBody(at), _))) if came >= at => (0, true),
                (Some(came), Some((At::AnswerBody(at), _))) => (rest.len().min(at - came), false),
                (Some(_), _) => (rest.len(), false),
            };
            if limit && let Some((_, what)) = state.to_request.take() {
                steps.push(self.act(state, what));
                continue;
            }
            let (part, more) = rest.split_at(count);
            match &mut state.answer_body {
                Some(came) => *came += count,
                None => {
                    state.answer.extend_from_slice(part);
                    if state.answer.len() > LONGEST_HEAD || state.answer.ends_with(b"\r\n\r\n") {
                        state.answer_body = Some(0);
                    }
                }
            }
            if !state.lose_down {
                match steps.last_mut() {
                    Some(Step::Pass(passed)) => passed.extend_from_slice(part),
                    _ => steps.push(Step::Pass(part.to_vec())),
                }
            }
            rest = more;
        }
        steps
    }

    /// Lets something go up, unless it is lost.
    fn pass(&self, state: &State, bytes: &[u8], steps: &mut Vec<Step>) {
        if !state.lose_up && !bytes.is_empty() {
            steps.push(Step::Pass(bytes.to_vec()));
        }
    }

    /// Counts what passes, and acts where that is to the byte; what is left to look at.
    fn by_count<'b>(&self, state: &mut State, bytes: &'b [u8], up: bool, steps: &mut Vec<Step>) -> &'b [u8] {
        let before = if up { state.counts.0 } else { state.counts.1 };
        let at = match state.to_connection {
            Some((At::Up(at), _)) if up => at,
            Some((At::Down(at), _)) if !up => at,
            _ => usize::MAX,
        };
        let after = before + bytes.len();
        if up {
            state.counts.0 = after
        } else {
            state.counts.1 = after
        }
        if at >= after {
            return bytes;
        }
        let (first, _) = bytes.split_at(at.saturating_sub(before));
        if !first.is_empty() {
            steps.push(Step::Pass(first.to_vec()));
        }
        if let Some((_, what)) = state.to_connection.take() {
            steps.push(self.act(state, what));
        }
        &[]
    }
}

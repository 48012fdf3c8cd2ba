//! The lines of an NDJSON stream. A line counts once its end is here; the whole stream has a largest size.

use tokio::time::Instant;

use super::RemoteError;
use super::answer::Answer;

/// A stream of lines that is being read.
#[derive(Debug)]
pub(super) struct Lines {
    answer: Answer,
    /// What was read, how much of it was handed out, and how much was searched for a line's end.
    pending: Vec<u8>,
    given: usize,
    searched: usize,
    /// Bytes read so far.
    read: usize,
}

impl Lines {
    pub(super) fn new(answer: Answer) -> Self {
        Self { answer, pending: Vec::new(), given: 0, searched: 0, read: 0 }
    }

    /// What is left of the answer after the last line that mattered.
    pub(super) fn into_answer(self) -> Answer {
        self.answer
    }

    /// The next line that is not blank, or `None` if the stream ended after its last line. The line must begin
    /// by `begins_by`, and once begun go on steadily to its end.
    pub(super) async fn next(&mut self, begins_by: Instant) -> Result<Option<Vec<u8>>, RemoteError> {
        let mut ends_by = None;
        loop {
            if let Some(line) = self.take_line() {
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                return Ok(Some(line));
            }
            let is_between = self.given == self.pending.len();
            let piece = if is_between {
                self.answer.piece(begins_by).await?
            } else {
                let answer_time = self.answer.deadlines().answer;
                let by = *ends_by.get_or_insert_with(|| Instant::now() + answer_time);
                self.answer.steady_piece(by).await?
            };
            match piece {
                Some(piece) => self.add(&piece)?,
                None if is_between => return Ok(None),
                None => return Err(RemoteError::broken(self.answer.during(), "the stream ended in a line")),
            }
        }
    }

    fn add(&mut self, piece: &[u8]) -> Result<(), RemoteError> {
        self.read += piece.len();
        if self.read > self.answer.deadlines().most {
            return Err(RemoteError::damaged(self.answer.during(), "the stream is too long"));
        }
        // Once a piece, and not once a line: a piece may be a hundred thousand empty lines.
        self.pending.drain(..self.given);
        self.searched -= self.given;
        self.given = 0;
        self.pending.extend_from_slice(piece);
        Ok(())
    }

    fn take_line(&mut self) -> Option<Vec<u8>> {
        let fresh = self.pending.get(self.searched..).unwrap_or_default();
        let Some(end) = fresh.iter().position(|byte| *byte == b'\n') else {
            self.searched = self.pending.len();
            return None;
        };
        let end = self.searched + end + 1;
        let line = self.pending.get(self.given..end).map(<[u8]>::to_vec);
        (self.given, self.searched) = (end, end);
        line
    }
}

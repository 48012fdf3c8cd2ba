//! Each kind of entry of the local store. The first line says which kind, and whether the rest is sealed as it must be or lies
//! there as it is. What can be read is written and read again as the same; what cannot is a miss, and harms nothing.

use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use pcmcache::local::history::Near;
use pcmcache::local::lock::Turn;
use pcmcache::local::memo::Memo;
use pcmcache::local::origin::ServerId;
use pcmcache::local::{Kind, Store, sealed};
use pcmcache_shared::{ActionKey, Claim, Digest, Output, ProfileName, Role, UnitKey};

use crate::{parts, scratch};

pub(crate) fn run(input: &[u8]) {
    static STORE: OnceLock<Store> = OnceLock::new();
    let store = STORE.get_or_init(|| Store::open(&scratch::directory("store")).expect("a store"));
    let (kind, body) = parts::first_line(input);
    let entry = Entry { store, body, is_sealed: kind.contains(&b'+') };
    match kind.first() {
        Some(b'u') => entry.include_sets(),
        Some(b'r') => entry.result(),
        Some(b'c') => entry.command(),
        Some(b'n') => entry.near(),
        Some(b'e') => entry.embedded(),
        Some(b's') => entry.server(),
        Some(b'q') => entry.queued(),
        Some(b'm') => entry.memo(),
        Some(b'p') => entry.profile(),
        Some(b'b') => entry.blob(),
        Some(b'l') => entry.lock(),
        _ => {}
    }
    // What was set aside is bounded, but need not pile up here.
    let _ = fs_err::remove_dir_all(store.root().join("damaged"));
}

struct Entry<'a> {
    store: &'a Store,
    body: &'a [u8],
    is_sealed: bool,
}

impl Entry<'_> {
    fn place(&self, path: &Path) {
        fs_err::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        match self.is_sealed {
            true => sealed::write(path, self.body).expect("a file"),
            false => fs_err::write(path, self.body).expect("a file"),
        }
    }

    fn place_named(&self, kind: Kind, name: &str) {
        self.place(&self.store.root().join(kind.directory()).join(&name[..2]).join(name));
    }

    fn include_sets(&self) {
        let unit = UnitKey::of("a unit");
        self.place_named(Kind::Units, &unit.to_string());
        let sets = self.store.include_sets(unit);
        let Some(first) = sets.first() else { return };
        self.store.add_include_set(unit, &Default::default()).expect("room");
        self.store.add_include_set(unit, first).expect("room");
        assert_eq!(self.store.include_sets(unit).first(), Some(first));
    }

    fn result(&self) {
        let action = ActionKey::of("an action");
        self.place_named(Kind::Results, &action.to_string());
        let Some(kept) = self.store.result(action) else { return };
        assert!(kept.result.check().is_ok());
        self.store.put_result(action, &kept).expect("room");
        assert_eq!(self.store.result(action), Some(kept));
    }

    fn command(&self) {
        let action = ActionKey::of("an action");
        self.place_named(Kind::Commands, &action.to_string());
        let Some(command) = self.store.command(action) else { return };
        self.store.put_command(action, &command).expect("room");
        assert_eq!(self.store.command(action), Some(command));
    }

    fn near(&self) {
        let bmi = Digest::of("a bmi");
        let name = Digest::of(format!("bmi\n{bmi}")).to_string();
        self.place_named(Kind::Near, &name);
        let before = self.store.near(Near::Bmi(bmi));
        let action = ActionKey::of("another");
        self.store.add_near(Near::Bmi(bmi), action).expect("room");
        let after = self.store.near(Near::Bmi(bmi));
        assert_eq!(after.first(), Some(&action));
        assert!(after.len() <= before.len() + 1);
    }

    fn embedded(&self) {
        let bmi = Digest::of("a bmi");
        self.place_named(Kind::Embedded, &bmi.to_string());
        let Some(embedded) = self.store.embedded(bmi) else { return };
        self.store.mark_embedded(bmi, &Default::default()).expect("room");
        self.store.mark_embedded(bmi, &embedded).expect("room");
        assert_eq!(self.store.embedded(bmi), Some(embedded));
    }

    fn server(&self) {
        let server = ServerId::of("http://cache");
        self.place_named(Kind::Servers, &server.to_string());
        let Some(notes) = self.store.server_notes(server) else { return };
        self.store.note_server(server, &notes).expect("room");
        assert_eq!(self.store.server_notes(server), Some(notes));
    }

    fn queued(&self) {
        self.place(&self.store.root().join("queue").join(Digest::of("queued").to_string()));
        for found in self.store.queue() {
            let Some(queued) = self.store.queued(&found) else { continue };
            assert!(found.remove());
            self.store.enqueue(&queued).expect("room");
            let again: Vec<_> =
                self.store.queue().iter().filter_map(|found| self.store.queued(found)).collect();
            assert_eq!(again, [queued]);
        }
        self.store.queue().iter().for_each(|found| assert!(found.remove()));
    }

    /// Whatever the memo says, the digest is that of the bytes.
    fn memo(&self) {
        let directory = self.store.root().join("sources");
        let file = directory.join("header.h");
        if !file.exists() {
            fs_err::create_dir_all(&directory).expect("a directory");
            fs_err::write(&file, "text").expect("a file");
        }
        let name = Digest::of(directory.as_os_str().as_encoded_bytes()).to_string();
        self.place_named(Kind::Memo, &name);
        for _ in 0..2 {
            let mut memo = Memo::new(Some(self.store.clone()));
            assert_eq!(memo.digest(&file).expect("it is there").1, Digest::of("text"));
            memo.save();
        }
    }

    /// Notes are lines that are appended to: each whole one counts.
    fn profile(&self) {
        let profile: ProfileName = "nightly".parse().expect("a name");
        self.place(&self.store.root().join("profiles/nightly"));
        let before = self.store.noted_uses(&profile).expect("notes");
        let action = ActionKey::of("used");
        for _ in 0..2 {
            // The first may end a line that was torn.
            self.store.note_use(&profile, action).expect("room");
        }
        let after = self.store.noted_uses(&profile).expect("notes");
        assert!(after.contains(&action) && after.len() <= before.len() + 2);
        // A key whose line was torn just before its end counts until something is appended.
        assert!(after.starts_with(&before) || !self.body.ends_with(b"\n"));
        assert!(self.store.forget_notes(&profile).expect("notes"));
    }

    fn blob(&self) {
        let output = Output { role: Role::Object, digest: Digest::of("bytes"), size: 5 };
        self.place(&self.store.blob_path(output.digest));
        if let Ok(bytes) = self.store.read_blob(&output) {
            assert_eq!(bytes, b"bytes");
        }
        let path = self.store.blob_path(output.digest);
        self.store.verify();
        assert!(!path.exists() || fs_err::read(path).expect("it is there") == b"bytes");
    }

    /// Only one note in a lock's file means anything, and no other keeps anybody from working.
    fn lock(&self) {
        let claim = Claim::of("a claim");
        self.place_named(Kind::Locks, &claim.to_string());
        match self.store.lock(claim, Duration::ZERO, &|| false) {
            Turn::Ours(lock) => {
                assert!(!self.body.starts_with(b"failed") && !lock.waited());
                lock.release(self.body.len().is_multiple_of(2));
            }
            Turn::Alone => assert!(self.body.starts_with(b"failed")),
            Turn::Interrupted => panic!("nobody interrupts"),
        }
    }
}

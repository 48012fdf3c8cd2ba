//! Builder signatures: who pins keys gets what they signed for that scope, and nothing else, wherever it comes from.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use pcmcache_tests::{Machine, Scratch, Server, Unit, Weight, turn};

/// Makes a key; where it is, and its public half.
fn key(scratch: &Scratch, name: &str) -> (PathBuf, String) {
    let (file, maker) =
        (scratch.path().join(format!("{name}.pem")), Machine::new(scratch, &format!("maker-of-{name}")));
    let path = file.to_string_lossy().into_owned();
    let made = maker.start(maker.launcher(), ["key", "new", &path]).finish().ok();
    let shown = maker.start(maker.launcher(), ["key", "show", &path]).finish().ok();
    assert_eq!(made.stdout, shown.stdout);
    (file, made.stdout.trim().to_owned())
}

/// A machine after its compile of the unit, which must be right: (compiles, remote hits, local hits).
#[track_caller]
fn compiled(machine: &Machine, unit: &Unit, right: &pcmcache_tests::unit::Outputs) -> (u64, u64, u64) {
    let end = machine.compile(unit.arguments()).ok();
    assert_eq!((end.stdout.as_str(), end.stderr.as_str()), ("", ""), "{}", machine.log());
    assert_eq!(unit.outputs(machine.build()), *right);
    let stats = machine.stats();
    (stats.compiles, stats.remote_hits, stats.local_hits)
}

fn unsigned(machine: &Machine) -> u64 {
    machine.stats().errors.get("unsigned").copied().unwrap_or(0)
}

#[test]
fn what_a_pinned_key_signed_is_taken_and_nothing_else() {
    let _turn = turn::beside_others();
    let scratch = Scratch::new("signatures");
    let server = Server::start(&scratch);
    let ((signs, public), (_, other)) = (key(&scratch, "key"), key(&scratch, "other"));
    let machine = |name: &str| Machine::new(&scratch, name).remote(&server.url());
    let unit = Unit::write(&scratch, "unit", 7, Weight::Light);
    let right = unit.right_outputs(&scratch);
    assert_eq!(compiled(&machine("builder").with("PCMCACHE_SIGN_KEY", &signs), &unit, &right), (1, 0, 0));

    // Who pins the key, alone or among others, for its scope by name or not; and who pins nothing.
    let list = scratch.file("keys", format!("# whom we trust\n{other}\nmain:{public}\n"));
    let lists = [
        public.clone(),
        format!("{other},{public}"),
        format!("main:{public}"),
        format!("@{}", list.display()),
    ];
    for (number, pins) in lists.iter().enumerate() {
        let reader = machine(&format!("reader-{number}")).with("PCMCACHE_TRUSTED_KEYS", pins);
        assert_eq!(compiled(&reader, &unit, &right), (0, 1, 0), "{pins}: {}", reader.log());
        assert_eq!(
            compiled(&reader, &unit, &right),
            (0, 1, 1),
            "what was fetched is as good: {}",
            reader.log()
        );
    }
    let anyone = machine("anyone");
    assert_eq!(compiled(&anyone, &unit, &right), (0, 1, 0));

    // Who pins another key, the key for another scope, or what is no key, compiles, and hits their own after.
    let refusing =
        [("other", other.clone()), ("elsewhere", format!("pr-17:{public}")), ("no-key", "oops".to_owned())];
    for (name, pins) in refusing {
        let reader = machine(name).with("PCMCACHE_TRUSTED_KEYS", &pins);
        assert_eq!(compiled(&reader, &unit, &right), (1, 0, 0), "{pins}: {}", reader.log());
        assert!(unsigned(&reader) > 0, "{:?}", reader.stats());
        assert_eq!(compiled(&reader, &unit, &right), (1, 0, 1), "{pins}: {}", reader.log());
        assert_eq!(reader.stats().downloaded_bytes, 0, "nothing of it was even fetched");
    }

    // What was fetched before keys were pinned is held to them as well.
    let later = anyone.with("PCMCACHE_TRUSTED_KEYS", &other);
    assert_eq!(compiled(&later, &unit, &right), (1, 1, 0), "{}", later.log());
    assert_eq!(compiled(&later, &unit, &right), (1, 1, 1), "its own by now: {}", later.log());
}

#[test]
fn what_is_unsigned_wins_nothing_where_keys_are_pinned() {
    let _turn = turn::beside_others();
    let scratch = Scratch::new("unsigned");
    let server = Server::start(&scratch);
    let (signs, public) = key(&scratch, "key");
    let machine = |name: &str| Machine::new(&scratch, name).remote(&server.url());
    let unit = Unit::write(&scratch, "unit", 7, Weight::Light);
    let right = unit.right_outputs(&scratch);
    compiled(&machine("unsigned"), &unit, &right);

    let builder = machine("builder").with("PCMCACHE_SIGN_KEY", &signs).with("PCMCACHE_TRUSTED_KEYS", &public);
    assert_eq!(compiled(&builder, &unit, &right), (1, 0, 0), "{}", builder.log());
    assert!(unsigned(&builder) > 0, "{:?}", builder.stats());
    assert_eq!(compiled(&builder, &unit, &right), (1, 0, 1), "{}", builder.log());
    // It made the same, and signed it: that is what everybody gets from now on.
    let reader = machine("reader").with("PCMCACHE_TRUSTED_KEYS", &public);
    assert_eq!(compiled(&reader, &unit, &right), (0, 1, 0), "{}", reader.log());
}

#[test]
fn without_the_key_it_names_a_builder_publishes_nothing() {
    let _turn = turn::beside_others();
    let scratch = Scratch::new("no-key");
    let server = Server::start(&scratch);
    let unit = Unit::write(&scratch, "unit", 7, Weight::Light);
    let right = unit.right_outputs(&scratch);
    let (open, _) = key(&scratch, "open");
    fs_err::set_permissions(&open, std::fs::Permissions::from_mode(0o644)).expect("a key for all to see");
    let missing = scratch.path().join("missing");
    let empty = scratch.file("empty", "");
    fs_err::set_permissions(&empty, std::fs::Permissions::from_mode(0o600)).expect("an empty key");
    for (name, key) in [("open", open), ("missing", missing), ("empty", empty)] {
        let machine = Machine::new(&scratch, &format!("{name}-machine")).remote(&server.url());
        let machine = machine.with("PCMCACHE_SIGN_KEY", key);
        assert_eq!(compiled(&machine, &unit, &right), (1, 0, 0), "{}", machine.log());
        assert_eq!(machine.stats().errors.get("sign_key"), Some(&1), "{:?}", machine.stats());
        assert_eq!(server.results(), 0);
        assert_eq!(compiled(&machine, &unit, &right), (1, 0, 1), "{}", machine.log());
    }
}

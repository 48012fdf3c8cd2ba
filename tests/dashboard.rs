//! The dashboard in a real browser: a build appears and ends before its eyes, the charts can be read with and without
//! eyes, by day, by night and on a phone; it asks nobody but its server, and whoever may not look is asked for a token.
//!
//! Pictures of all of it stay behind under `target/dashboard/`.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, SystemTime};

use pcmcache_shared::api::acquire::{AcquireLine, AcquireMode, AcquireRequest, KnownSet};
use pcmcache_shared::api::actions::{self, PublishRequest};
use pcmcache_shared::api::leases::{self, Hold};
use pcmcache_shared::api::{acquire, blobs};
use pcmcache_shared::recipe::{Learnt, Unit, subject};
use pcmcache_shared::{ActionResult, Claim, Cost, Digest, IncludeSet, Output, Recipe, Role, Scope};
use pcmcache_tests::browser::{Browser, DESK, Look, PHONE, pictures};
use pcmcache_tests::{Scratch, Server, http, turn};
use redb::{Database, TableDefinition};
use serde_json::json;

/// A module of some program: what it takes to build it, and what comes of that.
struct Module {
    unit: Unit,
    set: IncludeSet,
    recipe: Recipe,
    outputs: [Vec<u8>; 2],
    wall_ms: u64,
}

impl Module {
    fn new(path: &str, wall_ms: u64) -> Self {
        let mut unit = Unit::new();
        unit.source(Path::new(path), Digest::of(path));
        let set: IncludeSet = [Learnt::File("/usr/include/assert.h".into())].into_iter().collect();
        let recipe = Recipe::new(&unit, &set, |_| Some(Digest::of("a header"))).expect("a recipe");
        let outputs = ["bmi", "object"].map(|what| format!("{what} of {path}").repeat(1500).into_bytes());
        Self { unit, set, recipe, outputs, wall_ms }
    }

    /// The same, made by someone whose compiler has a mind of its own.
    fn making(&self, other: &str) -> Self {
        let outputs = [other.as_bytes().to_vec(), self.outputs[1].clone()];
        let (unit, set, recipe) = (self.unit.clone(), self.set.clone(), self.recipe.clone());
        Self { unit, set, recipe, outputs, wall_ms: self.wall_ms }
    }

    fn request(&self, holder: &str, known: bool) -> AcquireRequest {
        let set = KnownSet { set: self.set.digest(), action: Some(self.recipe.action_key()) };
        AcquireRequest {
            claim: self.unit.key().into(),
            unit: Some(self.unit.key()),
            known: if known { vec![set] } else { Vec::new() },
            request_id: holder.replace(['/', '.'], "-"),
            holder: holder.to_owned(),
            subject: subject(self.unit.text()).expect("a source"),
            mode: AcquireMode::Build,
            wait_ms: 60_000,
            hold: true,
        }
    }

    /// Uploads and publishes; gives the status of the publish.
    fn publish(&self, server: &Server, builder: &str, lease: Option<Lease>) -> u16 {
        let mut outputs = Vec::new();
        for (role, bytes) in [Role::Bmi, Role::Object].into_iter().zip(&self.outputs) {
            let digest = Digest::of(bytes);
            let path = blobs::path(&Scope::default(), digest);
            let octets = [("Content-Type", "application/octet-stream")];
            http::ask(server.address(), "PUT", &path, &octets, bytes).expect("an upload");
            outputs.push(Output { role, digest, size: bytes.len() as u64 });
        }
        let cost = Cost { wall_ms: self.wall_ms };
        let request = PublishRequest {
            result: ActionResult { outputs, cost, builder: builder.to_owned(), signature: None },
            recipe: self.recipe.text().to_owned(),
            include_set: self.set.text(),
            claim: lease.as_ref().map_or(self.unit.key().into(), |(_, claim)| *claim),
            lease: lease.map(|(hold, _)| hold),
        };
        let path = actions::path(&Scope::default(), self.recipe.action_key());
        http::ask_json(server.address(), "PUT", &path, &request).expect("a publish").status
    }

    /// Builds it from its lease to its result.
    fn build(&self, server: &Server, builder: &str) {
        let mut stream = Stream::open(server, &self.request(builder, false));
        let lease = stream.granted();
        assert_eq!(self.publish(server, builder, Some(lease)), 201);
    }

    /// Someone who has built it before finds it.
    fn hit(&self, server: &Server, who: &str) {
        let line = Stream::open(server, &self.request(who, true)).line();
        assert!(matches!(line, AcquireLine::Hit(_)), "{line:?}");
        for bytes in &self.outputs {
            let blob = http::get(server.address(), &blobs::path(&Scope::default(), Digest::of(bytes)));
            assert_eq!(blob.body, *bytes);
        }
    }
}

/// What a holder has to show.
type Lease = (Hold, Claim);

fn renew(server: &Server, (hold, claim): &Lease) {
    let path = leases::path(&Scope::default(), *claim);
    assert_eq!(http::ask_json(server.address(), "POST", &path, hold).expect("a renewal").status, 200);
}

/// The open answer to an acquire.
struct Stream(BufReader<TcpStream>);

impl Stream {
    fn open(server: &Server, request: &AcquireRequest) -> Self {
        let body = serde_json::to_string(request).expect("JSON");
        let head = format!(
            "POST {} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            acquire::path(&Scope::default()),
            server.address(),
            body.len()
        );
        let mut stream = TcpStream::connect(server.address()).expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a limit");
        stream.write_all(format!("{head}{body}").as_bytes()).expect("a request");
        Self(BufReader::new(stream))
    }

    /// The next line of the answer; the head and the sizes of chunks are none.
    fn line(&mut self) -> AcquireLine {
        loop {
            let mut line = String::new();
            assert!(self.0.read_line(&mut line).expect("a line") > 0, "the answer is over");
            if line.starts_with('{') {
                return serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
            }
        }
    }

    /// What the wait ends with; until then the server says now and then that it goes on.
    fn answer(&mut self) -> AcquireLine {
        loop {
            match self.line() {
                AcquireLine::Busy { .. } => {}
                other => return other,
            }
        }
    }

    fn granted(&mut self) -> Lease {
        match self.line() {
            AcquireLine::Granted { claim, fence, secret, .. } => (Hold { fence, secret }, claim),
            other => panic!("expected a grant, got {other:?}"),
        }
    }
}

/// A history as a busy server has it: a year of working days, each with a morning, a noon and an evening.
fn keep_history(data: &Path) {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs();
    fs_err::create_dir_all(data).expect("the data directory");
    let database = Database::create(data.join("history.redb")).expect("a history");
    let write = database.begin_write().expect("a transaction");
    for (name, unit, count) in [("minutes", 60, 24 * 60), ("hours", 3600, 364 * 24)] {
        let table: TableDefinition<u64, &[u8]> = TableDefinition::new(name);
        let mut table = write.open_table(table).expect("a table");
        for number in (now / unit - count)..(now / unit) {
            let (hour, day) = ((number * unit / 3600) % 24, number * unit / 86400);
            let chance = Digest::of(format!("{name} {number}")).as_bytes()[0] as u64;
            let works = [0, 0, 0, 0, 0, 0, 1, 3, 8, 12, 14, 13, 8, 11, 14, 13, 11, 8, 5, 3, 2, 1, 1, 0]
                [hour as usize];
            // A weekend is quiet, but for the one on which somebody looks.
            let is_quiet = unit == 3600 && (day + 4) % 7 < 2;
            let hits = works * (60 + chance) * unit / 60 * if is_quiet { 1 } else { 8 } / 40;
            let misses = hits * (chance % 16) / 100;
            let bucket = json!({
                "hits": hits, "misses": misses, "waited": misses / 3, "published": misses,
                "served_bytes": hits * 620_000, "uploaded_bytes": misses * 940_000,
                "saved_ms": hits * 1900, "built_ms": misses * 2100,
                "stored_bytes": 21_000_000_000_u64 + (number % 9000) * 90_000,
            });
            let row = serde_json::to_vec(&bucket).expect("JSON");
            table.insert(number, row.as_slice()).expect("a row");
        }
    }
    write.commit().expect("the history is kept");
}

const LIGHT: Look = Look { window: DESK, scheme: "light" };
const LOOKS: [(&str, Look); 4] = [
    ("desk-light", LIGHT),
    ("desk-dark", Look { window: DESK, scheme: "dark" }),
    ("phone-light", Look { window: PHONE, scheme: "light" }),
    ("phone-dark", Look { window: PHONE, scheme: "dark" }),
];

/// The page said nothing on the console, asked nobody else, and an accessibility checker has nothing serious to say.
#[track_caller]
fn assert_well(browser: &mut Browser, server: &Server) {
    let serious: Vec<_> = browser.axe().into_iter().filter(|found| found.impact != "minor").collect();
    assert!(serious.is_empty(), "{serious:#?}");
    let told = browser.told();
    assert!(told.said.is_empty(), "{:#?}", told.said);
    assert_eq!(told.hosts, [server.address().to_string()], "no data leaves the host");
}

/// A server with a past: some modules are built and found, one of them differed.
fn busy(scratch: &Scratch) -> (Server, Module) {
    keep_history(&scratch.path().join("server"));
    let server = Server::start_as(scratch, ["--max-size", "40G"]);
    let modules = [
        ("/home/ci/atlas/base/hash.cppm", 850),
        ("/home/ci/atlas/geometry/render.cppm", 4210),
        ("/home/ci/atlas/graph/graph-paths.cppm", 1760),
        ("/home/ci/atlas/text/text-tokens.cppm", 2380),
        ("/usr/lib/llvm-22/share/libc++/v1/std.compat.cppm", 6900),
    ]
    .map(|(path, wall_ms)| Module::new(path, wall_ms));
    for (index, module) in modules.iter().enumerate() {
        module.build(&server, &format!("runner-{index}/4{index}1"));
        (0..=index).for_each(|who| module.hit(&server, &format!("desk-{who}/77{who}")));
    }
    assert_eq!(modules[1].making("other bytes").publish(&server, "desk-mira", None), 409);
    (server, Module::new("/usr/lib/llvm-22/share/libc++/v1/std.cppm", 9800))
}

#[test]
fn a_build_appears_and_ends_before_the_eyes_of_whoever_looks() {
    let _turn = turn::beside_others();
    let scratch = Scratch::new("dashboard");
    let (server, std) = busy(&scratch);
    let (mut browser, pictures) = (Browser::start(), pictures());
    println!("pictures: {}", pictures.display());

    browser.open(&server.url(), LIGHT);
    browser.sees("#status", "Live");
    browser.sees("#building-none", "Nothing is being built");
    browser.sees("#diverged", "render.cppm");
    browser.sees("#slowest", "std.compat.cppm");

    let mut holder = Stream::open(&server, &std.request("runner-a12/4411", false));
    let lease = holder.granted();
    let mut waiters =
        ["runner-b03/990", "desk-jo/2311"].map(|who| Stream::open(&server, &std.request(who, true)));
    for waiter in &mut waiters {
        assert!(matches!(waiter.line(), AcquireLine::Busy { .. }));
    }
    let row = browser.sees("#building tbody tr", "runner-b03/990");
    assert!(
        row.contains("std.cppm") && row.contains("runner-a12/4411") && row.contains("desk-jo/2311"),
        "{row}"
    );
    renew(&server, &lease);
    browser.sees("#now", "1");
    browser.sees("#now-fine", "2 wait for them");
    renew(&server, &lease);
    browser.shot(&pictures.join("building.png"));

    assert_eq!(std.publish(&server, "runner-a12", Some(lease)), 201);
    for waiter in &mut waiters {
        assert!(matches!(waiter.answer(), AcquireLine::Hit(_) | AcquireLine::Sets { .. }));
    }
    browser.misses("#building", "std.cppm");
    let row = browser.sees("#finished tbody tr", "std.cppm");
    assert!(row.contains("published") && row.contains("runner-a12/4411"), "{row}");
    browser.sees("#now", "0");
    browser.sees("#slowest", "9.8 s");
    browser.shot(&pictures.join("finished.png"));
    assert_well(&mut browser, &server);
}

#[test]
fn it_can_be_read_by_day_by_night_on_a_phone_and_without_eyes() {
    let _turn = turn::beside_others();
    let scratch = Scratch::new("dashboard-looks");
    let (server, _) = busy(&scratch);
    let (mut browser, pictures) = (Browser::start(), pictures());
    let mut grounds = Vec::new();
    for (name, look) in LOOKS {
        // A build for each: nobody here renews a lease, and a slow machine takes its time.
        let std = Module::new(&format!("/home/ci/{name}/std.cppm"), 9800);
        let mut holder = Stream::open(&server, &std.request("runner-a12/4411", false));
        let _lease = holder.granted();
        let mut waiter = Stream::open(&server, &std.request("desk-jo/2311", false));
        assert!(matches!(waiter.line(), AcquireLine::Busy { .. }));
        browser.open(&server.url(), look);
        browser.sees("#building tbody tr", name);
        browser.sees("#asked", "Hits");
        let painted = browser.painted(".plot canvas");
        assert_eq!(painted.len(), 4, "{name}");
        assert!(painted.iter().all(|share| *share > 0.01), "{name}: {painted:?}");
        assert!(browser.overflow() <= 0, "{name} is wider than its window by {} dots", browser.overflow());
        grounds.push((look.scheme, browser.colour("body")));
        browser.shot(&pictures.join(format!("{name}.png")));
        assert_well(&mut browser, &server);
    }
    let (light, dark) = (grounds[0].clone(), grounds[1].clone());
    assert!(light.1 != dark.1 && grounds[2..] == [light, dark], "{grounds:?}");
}

#[test]
fn the_keyboard_is_enough_and_every_chart_is_a_table_too() {
    let _turn = turn::beside_others();
    let scratch = Scratch::new("dashboard-keys");
    let (server, _) = busy(&scratch);
    let mut browser = Browser::start();
    browser.open(&server.url(), LIGHT);
    browser.sees("#status", "Live");

    browser.press(&["Tab"]);
    assert_eq!(browser.focused(), "a Skip to the numbers");
    browser.press(&["Tab"]);
    assert_eq!(browser.focused(), "input day");
    browser.press(&["ArrowLeft"]);
    assert_eq!(browser.focused(), "input hour");
    browser.sees("#asked .readout", "the last hour");
    browser.press(&["ArrowRight"]);
    browser.sees("#asked .readout", "the last day");

    let charts =
        ["Hits and misses in numbers", "Bytes in numbers", "Compiler time in numbers", "Store in numbers"];
    for chart in charts {
        let mut steps = 0;
        while !browser.focused().ends_with(chart) || !browser.focused().starts_with("summary") {
            browser.press(&["Tab"]);
            steps += 1;
            assert!(steps < 30, "the keyboard never comes to '{chart}', but to '{}'", browser.focused());
        }
        browser.press(&["Enter"]);
    }
    let tables = browser.read("#charts details table");
    assert_eq!(tables.len(), charts.len());
    for (table, heads) in tables.iter().zip(["Hit rate", "Uploaded", "Saved", "Taken"]) {
        assert!(table.contains(heads) && table.lines().count() > 20, "{table}");
    }
    // The pictures say their sums to who does not see them.
    let said = browser.read("#charts .readout");
    assert!(said[0].contains("Hit rate") && said[0].contains('%'), "{said:?}");
    browser.shot(&pictures().join("numbers.png"));
    assert_well(&mut browser, &server);
}

#[test]
fn where_there_are_tokens_the_page_asks_for_one_and_shows_what_it_may() {
    let _turn = turn::beside_others();
    let scratch = Scratch::new("dashboard-tokens");
    let (server, _) = busy(&scratch);
    let mut browser = Browser::start();
    browser.open(&server.url(), LIGHT);
    browser.sees("#status", "Live");
    // From now on there are tokens: the open page notices.
    let observer = server.new_token("observer", &["--observe"]);
    let reader = server.new_token("reader", &["--read", "main"]);
    browser.sees("#sign-in", "A token, please");
    assert_eq!(browser.focused(), "input ");
    browser.shot(&pictures().join("token.png"));

    browser.type_text("pcmc_wrong");
    browser.press(&["Enter"]);
    browser.sees("#token-no", "does not know this token");
    browser.type_text(&observer);
    browser.press(&["Enter"]);
    browser.sees("#status", "Live");
    browser.sees("#store", "40 GiB");
    let told = browser.told();
    let other: Vec<_> = told.said.iter().filter(|line| !line.contains("401 (Unauthorized)")).collect();
    assert!(other.is_empty(), "{other:?}");
    assert_eq!(told.hosts, [server.address().to_string()], "the token went nowhere else");

    browser.open(&server.url(), LIGHT);
    browser.sees("#sign-in", "A token, please");
    browser.type_text(&reader);
    browser.press(&["Enter"]);
    browser.sees("#status", "Live, of main");
    browser.sees("#slowest", "std.compat.cppm");
    assert_eq!(browser.read("#store:visible, #over:visible"), Vec::<String>::new());
    browser.shot(&pictures().join("reader.png"));
    assert!(browser.axe().iter().all(|found| found.impact == "minor"));
    browser.told();
}

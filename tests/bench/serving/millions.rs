//! What a store of very many results takes: to open, also after a kill; to ask; in memory. Beside one of ten thousand.
//!
//! The rows are made as they are after a loss: a journal is written, and the server makes its index of it. The recipes are
//! files with the right names, which are links to a few, since nobody reads them here.

use std::io::{BufWriter, Write as _};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use pcmcache_server::results::StoredResult;
use pcmcache_shared::{ActionKey, ActionResult, Cost, Digest, Output, Role, Scope, UnitKey, Writer};
use pcmcache_tests::{Process, Scratch, within};

use crate::figures::{Figures, Report};
use crate::publishes::put_output;
use crate::stand::{Cached, Stand as _, program};
use crate::wire::{Wire, request, run};

/// How many the other store has.
const FEW: u64 = 10_000;
/// Results of one unit, over one include set.
const OF_A_UNIT: u64 = 10;
/// Names of one file: file systems have a bound.
const LINKS: u64 = 30_000;
/// Lookups of a round, each of another result.
const LOOKUPS: u64 = 1000;
/// What a server's start and its count of the files do not take.
const PATIENCE: Duration = Duration::from_secs(600);
/// What making an index does not take.
const LONG: Duration = Duration::from_secs(4 * 3600);

pub(crate) fn measure(scratch: &Scratch, count: u64, rounds: usize, report: &mut Report) {
    let stores = [("many", count), ("few", FEW)].map(|(name, count)| Store::fill(scratch, name, count));
    // The first start makes what a rebuild leaves to be made.
    stores.iter().for_each(|store| drop(store.open()));
    let (mut opened, mut killed) = ([const { Vec::new() }; 2], [const { Vec::new() }; 2]);
    let (mut ready, mut asked) = ([const { Vec::new() }; 2], [const { Vec::new() }; 2]);
    let mut memory = [const { Vec::new() }; 2];
    for round in 0..rounds {
        for (n, store) in stores.iter().enumerate() {
            let (server, took) = store.open();
            opened[n].push(took);
            server.stop();
            let (server, _) = store.open();
            // SIGKILL, while it counts what is there.
            drop(server);
            let from = Instant::now();
            let (server, took) = store.open();
            killed[n].push(took);
            // It takes nothing in before all is counted.
            within(PATIENCE, "a server that takes uploads", || put_output(&server).then_some(()));
            ready[n].push(from.elapsed().as_secs_f64());
            asked[n].push(store.ask(&server, round).median());
            memory[n].push(server.memory());
        }
    }
    let name = |what: &str| format!("{count} results: {what}");
    let rows = [
        ("time to open", "s", opened),
        ("the same after kill -9", "s", killed),
        ("until it takes uploads", "s", ready),
        ("lookup of one, p50", "ms", asked),
        ("memory", "MB", memory),
    ];
    for (what, unit, figures) in rows {
        let [many, few] = figures.map(Figures::of);
        report.compare(&name(what), unit, &many, ("ten thousand", &few));
    }
    report.say(&name("index"), "MB", &Figures::of([stores[0].index_bytes() as f64 / 1e6]));
}

/// A data directory that is full.
struct Store {
    directory: PathBuf,
    count: u64,
}

impl Store {
    fn fill(scratch: &Scratch, name: &str, count: u64) -> Self {
        let directory = scratch.dir(name);
        let (store, from) = (Self { directory, count }, Instant::now());
        store.place_blobs();
        store.write_journal().expect("a journal");
        let mut rebuild = Command::new(program());
        rebuild.env_clear().args(["rebuild-index", "--data-dir"]).arg(&store.directory);
        let rebuilt = Process::start(rebuild).finish_within(LONG).ok();
        eprintln!("{count} results in {:.0?}: {}", from.elapsed(), rebuilt.stdout.trim());
        fs_err::remove_file(store.directory.join("index.redb.old")).ok();
        store
    }

    /// The keys in their order, spread like hashes.
    fn key(&self, number: u64) -> Digest {
        let mut bytes = [0; 32];
        let spread = u64::MAX / self.count * number;
        bytes[..8].copy_from_slice(&spread.to_be_bytes());
        bytes[8..16].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
        Digest::from_bytes(bytes)
    }

    fn place(&self, digest: Digest) -> PathBuf {
        let name = digest.to_string();
        self.directory.join("blobs").join(&name[..2]).join(name)
    }

    fn place_blobs(&self) {
        for shard in 0..=u8::MAX {
            fs_err::create_dir_all(self.directory.join("blobs").join(format!("{shard:02x}")))
                .expect("a shard");
        }
        for bytes in [OUTPUT, SET] {
            fs_err::write(self.place(Digest::of(bytes)), bytes).expect("a blob");
        }
        let mut recipe = PathBuf::new();
        for number in 0..self.count {
            let place = self.place(self.key(number));
            match number % LINKS {
                0 => fs_err::write(&place, RECIPE).map(|()| recipe = place),
                _ => fs_err::hard_link(&recipe, place),
            }
            .expect("a recipe");
        }
    }

    /// All rows but those that follow from others, as a base has them.
    fn write_journal(&self) -> std::io::Result<()> {
        let results = self.directory.join("results");
        fs_err::create_dir_all(&results)?;
        let mut base = BufWriter::new(fs_err::File::create(results.join(format!("{:020}.base", 1)))?);
        let mut line = |text: &str| {
            let sum = Digest::of(text).to_string();
            writeln!(base, "{} {text}", &sum[..16])
        };
        let (scope, set) = (Scope::default(), Digest::of(SET));
        // The same but for its unit, which is quicker to write than to make anew.
        let (stored, unit_of_first) = self.result(set);
        for number in 0..self.count {
            let stored = stored.replacen(&unit_of_first, &self.unit(number).to_string(), 1);
            let action = self.key(number);
            line(&format!(r#"{{"result":{{"scope":"{scope}","action":"{action}","stored":{stored}}}}}"#))?;
        }
        for first in (0..self.count).step_by(OF_A_UNIT as usize) {
            let actions = first..self.count.min(first + OF_A_UNIT);
            let actions: Vec<_> = actions.map(|number| format!(r#""{}""#, self.key(number))).collect();
            let (unit, actions) = (self.unit(first), actions.join(","));
            line(&format!(
                r#"{{"under":{{"scope":"{scope}","unit":"{unit}","set":"{set}","actions":[{actions}]}}}}"#
            ))?;
        }
        for first in (0..self.count).step_by(OF_A_UNIT as usize) {
            let unit = self.unit(first);
            line(&format!(r#"{{"sets":{{"scope":"{scope}","unit":"{unit}","sets":["{set}"]}}}}"#))?;
        }
        base.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()
    }

    fn unit(&self, number: u64) -> UnitKey {
        UnitKey::from_bytes(*self.key(number - number % OF_A_UNIT).as_bytes())
    }

    /// A result as it is written, and its unit as it stands there.
    fn result(&self, set: Digest) -> (String, String) {
        let output = Output { role: Role::Object, digest: Digest::of(OUTPUT), size: OUTPUT.len() as u64 };
        let result = ActionResult {
            outputs: vec![output],
            cost: Cost { wall_ms: 900 },
            builder: "build-host-17".to_owned(),
            signature: None,
        };
        let unit = UnitKey::of("the unit of this result");
        let writers = vec![Writer::before_tokens()];
        let stored = StoredResult { result, unit, set, writers, published_s: 1_700_000_000 };
        (serde_json::to_string(&stored).expect("JSON of a result"), unit.to_string())
    }

    /// A server over it, and how long it took to answer, in seconds.
    fn open(&self) -> (Cached, f64) {
        let from = Instant::now();
        // The scrub would find that the recipes are none.
        let server = Cached::over(&self.directory, &["--scrub-rate", "0"]);
        (server, from.elapsed().as_secs_f64())
    }

    /// How long it takes to be told of one result, for results from all over that nobody asked for before, in ms.
    fn ask(&self, server: &Cached, round: usize) -> Figures {
        let lookups = LOOKUPS.min(self.count);
        let path = |number| {
            let key = ActionKey::from_bytes(*self.key(number).as_bytes());
            pcmcache_shared::api::actions::path(&Scope::default(), key)
        };
        // Steps that do not divide the count lead all over it.
        let numbers =
            (0..lookups).map(|n| (n * (self.count / lookups) + n * 7919 + round as u64) % self.count);
        let requests: Vec<_> = numbers.map(|number| request("GET", &path(number), "", b"")).collect();
        run(async {
            let mut wire = Wire::to(server.address()).await;
            let mut times = Vec::new();
            for request in requests {
                let from = Instant::now();
                assert_eq!(wire.ask(&request).await.0, 200);
                times.push(from.elapsed().as_secs_f64() * 1e3);
            }
            Figures::of(times)
        })
    }

    fn index_bytes(&self) -> u64 {
        fs_err::metadata(self.directory.join("index.redb")).expect("the index").len()
    }
}

const OUTPUT: &[u8] = b"what every action of this store makes";
const SET: &[u8] = b"file /usr/include/a.h\n";
const RECIPE: &[u8] = b"a recipe that nobody reads\n";

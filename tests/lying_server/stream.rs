//! Lies in the acquire stream: what is there, who builds it, whose turn it is.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pcmcache_shared::api::acquire::{AcquireLine, AcquireRequest};
use pcmcache_shared::api::leases::Renewed;
use pcmcache_shared::api::problem::{Code, Problem};
use pcmcache_shared::api::{KeyedResult, OfferedSet};
use pcmcache_shared::{ActionKey, Digest, Output, Role};
use pcmcache_tests::liar::{Peer, Request};

use super::Lie;
use super::truth::{Truth, granted, hit, polite, say};

const PAUSE: Duration = Duration::from_millis(100);

/// A lie that is the answer to an acquire; everything else is answered politely.
macro_rules! acquired {
    ($name:literal, |$request:ident, $peer:ident, $truth:ident| $told:expr) => {
        Lie {
            name: $name,
            tell: |$request: &Request, $peer: &mut Peer, $truth: &Truth| {
                if !$request.is("POST", "/acquire") {
                    polite($request, $peer);
                    return false;
                }
                let _ = ($truth, $told);
                true
            },
        }
    };
}

/// The same, where the answer is chunks without end.
macro_rules! flood {
    ($name:literal, $chunk:expr) => {
        acquired!($name, |_request, peer, _truth| {
            let chunk = $chunk;
            peer.chunked(200);
            while peer.chunk(&chunk) {}
        })
    };
}

/// A hit that is not quite the honest one.
macro_rules! spoilt {
    ($name:literal, |$keyed:ident| $change:expr) => {
        Lie {
            name: $name,
            tell: |request: &Request, peer: &mut Peer, truth: &Truth| {
                hit(request, peer, truth, |$keyed: &mut KeyedResult| $change)
            },
        }
    };
}

/// The lies.
pub(super) const LIES: &[Lie] = &[
    flood!("a line without end", [b'x'; 64 * 1024]),
    flood!("empty lines without end", [b'\n'; 256 * 1024]),
    flood!("busy lines without end", busy_lines(1000)),
    acquired!("lines that make no sense", |_request, peer, _truth| {
        peer.chunked(200);
        peer.chunk("\u{0}\n[]\n{\"state\":null}\n");
        peer.end();
    }),
    acquired!("a state that nobody has", |_request, peer, _truth| {
        peer.chunked(200);
        peer.chunk("{\"state\":\"dancing\"}\n");
        peer.end();
    }),
    acquired!("lists in lists", |_request, peer, _truth| {
        peer.chunked(200);
        peer.chunk("[".repeat(10_000_000));
        peer.chunk("\n");
    }),
    acquired!("a hit with fifty megabytes of nothing", |_request, peer, _truth| bomb(peer, "hit")),
    acquired!("an offer with fifty megabytes of nothing", |_request, peer, _truth| bomb(peer, "sets")),
    acquired!("an offer of millions of writers", |request, peer, truth| {
        let OfferedSet { set, text, results } = truth.offer(request);
        let mut keyed = serde_json::to_value(&results[0]).expect("JSON");
        keyed["writers"] = serde_json::json!(["HERE"]);
        let line =
            serde_json::json!({"state": "sets", "sets": [{"set": set, "text": text, "results": [keyed]}]});
        let line = line.to_string().replace("\"HERE\"", &format!("{}\"a\"", "\"a\",".repeat(12_000_000)));
        peer.chunked(200);
        peer.chunk(line + "\n");
        peer.end();
    }),
    acquired!("half a line", |request, peer, truth| {
        let line =
            serde_json::to_string(&AcquireLine::Sets { sets: vec![truth.offer(request)] }).expect("JSON");
        peer.chunked(200);
        peer.chunk(&line[..line.len() / 2]);
        peer.end();
    }),
    acquired!("half a line and silence", |request, peer, truth| {
        let line =
            serde_json::to_string(&AcquireLine::Sets { sets: vec![truth.offer(request)] }).expect("JSON");
        peer.chunked(200);
        peer.chunk(&line[..line.len() / 2]);
        peer.hang();
    }),
    acquired!("a line letter by letter", |request, peer, truth| {
        let line =
            serde_json::to_string(&AcquireLine::Sets { sets: vec![truth.offer(request)] }).expect("JSON");
        peer.head(200, "");
        peer.dribble(line, PAUSE);
    }),
    acquired!("nothing after the head", |_request, peer, _truth| {
        peer.chunked(200);
        peer.hang();
    }),
    acquired!("no line", |_request, peer, _truth| {
        peer.chunked(200);
        peer.end();
    }),
    acquired!("busy for ever", |_request, peer, _truth| {
        peer.chunked(200);
        while peer.chunk(busy_lines(1)) {
            std::thread::sleep(PAUSE);
        }
    }),
    acquired!("busy and gone, again and again", |_request, peer, _truth| {
        peer.chunked(200);
        peer.chunk(busy_lines(1));
    }),
    acquired!("busy and then silence", |_request, peer, _truth| {
        peer.chunked(200);
        peer.chunk(busy_lines(1));
        peer.hang();
    }),
    acquired!("busy and then down", |_request, peer, _truth| {
        peer.chunked(200);
        peer.chunk(busy_lines(1));
        peer.chunk("{\"code\":\"unavailable\"}\n");
    }),
    acquired!("new include sets for ever", |_request, peer, _truth| {
        let text = format!("absent /nowhere/{}\n", FRESH.fetch_add(1, Ordering::SeqCst));
        say(
            peer,
            &AcquireLine::Sets { sets: vec![OfferedSet { set: Digest::of(&text), text, results: vec![] }] },
        );
    }),
    acquired!("an include set that is not what its digest says", |request, peer, truth| {
        let offer = truth.offer(request);
        let text = format!("absent /nowhere\n{}", offer.text);
        say(peer, &AcquireLine::Sets { sets: vec![OfferedSet { text, ..offer }] });
    }),
    acquired!("an include set of devices, pipes and what the kernel shows", |_request, peer, _truth| {
        let files = [
            "/dev/random",
            "/dev/stdin",
            "/dev/tty",
            "/dev/zero",
            "/proc/kcore",
            "/proc/kmsg",
            "/proc/self/mem",
        ];
        let text: String = files.iter().map(|file| format!("file {file}\n")).collect();
        say(
            peer,
            &AcquireLine::Sets { sets: vec![OfferedSet { set: Digest::of(&text), text, results: vec![] }] },
        );
    }),
    acquired!("an include set of a hundred thousand files", |_request, peer, _truth| {
        let mut text = String::new();
        for n in 0..100_000 {
            let _ = writeln!(text, "file /nowhere/{n:06}");
        }
        say(
            peer,
            &AcquireLine::Sets { sets: vec![OfferedSet { set: Digest::of(&text), text, results: vec![] }] },
        );
    }),
    acquired!("a grant, and then another", |request, peer, _truth| {
        peer.chunked(200);
        peer.line(&granted(request, 15_000));
        peer.line(&granted(request, 15_000));
        peer.hang();
    }),
    acquired!("a grant, and then a hit", |request, peer, truth| {
        peer.chunked(200);
        peer.line(&granted(request, 15_000));
        peer.line(&AcquireLine::Hit(truth.result(request)));
        peer.end();
    }),
    acquired!("a grant, and then babble without end", |request, peer, _truth| {
        peer.chunked(200);
        peer.line(&granted(request, 15_000));
        while peer.chunk([b'\n'; 4096]) {}
    }),
    acquired!("a grant of nothing", |request, peer, _truth| {
        peer.chunked(200);
        peer.line(&granted(request, 0));
        peer.hang();
    }),
    acquired!("a grant for ever", |request, peer, _truth| {
        peer.chunked(200);
        peer.line(&granted(request, u64::MAX));
        peer.hang();
    }),
    acquired!("a grant of something else", |request, peer, _truth| {
        let mut other: AcquireRequest = request.json();
        other.claim = ActionKey::of("other").into();
        let other = Request { body: serde_json::to_vec(&other).expect("JSON"), ..request.clone() };
        peer.chunked(200);
        peer.line(&granted(&other, 15_000));
        peer.hang();
    }),
    Lie {
        name: "a lease that is lost at once, and whose end nobody takes",
        tell: |request, peer, _| {
            if request.is("POST", "/leases/") {
                peer.problem(&Problem::new(Code::NoLease, ""));
                return true;
            } else if request.method == "DELETE" {
                peer.hang();
            } else if request.is("POST", "/acquire") {
                peer.chunked(200);
                peer.line(&granted(request, 1));
            } else {
                polite(request, peer);
            }
            false
        },
    },
    Lie {
        name: "renewals for no time",
        tell: |request, peer, _| {
            if request.is("POST", "/leases/") {
                peer.json(200, &Renewed { ttl_ms: 0 });
                return true;
            } else if request.is("POST", "/acquire") {
                peer.chunked(200);
                peer.line(&granted(request, 1));
                peer.hang();
            } else {
                // However quick the compile was, there is a renewal before the lease ends.
                std::thread::sleep(Duration::from_millis(500));
                polite(request, peer);
            }
            false
        },
    },
    spoilt!("a hit on another action", |keyed| keyed.action = ActionKey::of("another")),
    spoilt!("a hit without outputs", |keyed| keyed.result.outputs.clear()),
    spoilt!("a hit without the module", |keyed| keyed
        .result
        .outputs
        .retain(|output| output.role != Role::Bmi)),
    spoilt!("a hit with two modules", |keyed| {
        let bmi = *keyed.result.output(Role::Bmi).expect("a BMI");
        keyed.result.outputs.push(Output { size: 7, ..bmi });
    }),
    spoilt!("a hit with an output of nine exabytes", |keyed| size(keyed, Role::Bmi, u64::MAX / 2)),
    spoilt!("a hit with outputs beyond all numbers", |keyed| {
        size(keyed, Role::Bmi, u64::MAX);
        size(keyed, Role::Object, u64::MAX);
    }),
    spoilt!("a hit with a depfile of a gigabyte", |keyed| size(keyed, Role::Depfile, 1 << 30)),
    spoilt!("a hit whose builder has a long name", |keyed| keyed.result.builder = "x".repeat(100_000)),
    spoilt!("a hit that cost for ever", |keyed| {
        keyed.result.cost.wall_ms = u64::MAX;
        keyed.result.outputs.iter_mut().for_each(|output| output.digest = Digest::of("not there"));
    }),
];

/// What makes each include set another one.
static FRESH: AtomicU64 = AtomicU64::new(0);

fn busy_lines(count: usize) -> String {
    "{\"state\":\"busy\",\"expected_ms\":18446744073709551615,\"holder\":\"me\"}\n".repeat(count)
}

fn bomb(peer: &mut Peer, state: &str) {
    peer.chunked(200);
    peer.chunk(format!("{{\"state\":\"{state}\",\"sets\":[],\"junk\":["));
    let zeros = "0,".repeat(500_000);
    for _ in 0..48 {
        peer.chunk(&zeros);
    }
    peer.chunk("0]}\n");
    peer.end();
}

fn size(keyed: &mut KeyedResult, role: Role, size: u64) {
    keyed
        .result
        .outputs
        .iter_mut()
        .filter(|output| output.role == role)
        .for_each(|output| output.size = size);
}

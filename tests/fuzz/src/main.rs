//! libFuzzer around one target, which `PCMCACHE_FUZZ_TARGET` names. `tests/fuzz.sh` builds and runs it.

#![no_main]

use std::sync::OnceLock;

use pcmcache_fuzz::Target;

static TARGET: OnceLock<&Target> = OnceLock::new();

libfuzzer_sys::fuzz_target!(
    init: {
        let name = std::env::var("PCMCACHE_FUZZ_TARGET").unwrap_or_default();
        let target = pcmcache_fuzz::target(&name);
        let _ = TARGET.set(target.unwrap_or_else(|| {
            let names: Vec<&str> = pcmcache_fuzz::TARGETS.iter().map(|target| target.name).collect();
            eprintln!("PCMCACHE_FUZZ_TARGET='{name}' is none of: {}", names.join(" "));
            std::process::exit(2)
        }));
    },
    |data: &[u8]| {
        if let Some(target) = TARGET.get() {
            (target.run)(data);
        }
    }
);

//! Every file that either store keeps is damaged in every way: no compiler gets a wrong byte, and the build passes.

use std::path::{Path, PathBuf};

use pcmcache_tests::harm::Harm;
use pcmcache_tests::scratch::files_below;
use pcmcache_tests::{Machine, Modules, Scratch, Server, Unit, Weight, turn};

#[test]
fn each_damaged_file_of_the_local_store_is_a_miss_at_worst() {
    let _turn = turn::beside_others();
    let scratch = Scratch::new("damage-each");
    let unit = Unit::write(&scratch, "unit", 7, Weight::Light);
    unit.add("#warning careful");
    let right = unit.right_outputs(&scratch);
    let machine = Machine::new(&scratch, "machine");
    let said = machine.compile(unit.arguments()).ok().stderr;
    assert!(said.contains("careful"), "{said}");
    let files = kept(&machine.cache());
    println!("{files:?}");
    assert!(
        files.len() >= 7,
        "a compile leaves a unit, a result, a recipe and four blobs at least: {files:?}"
    );
    let mut builds = 0;
    for harm in Harm::ALL {
        for file in &files {
            // What an earlier harm moved aside or made anew under another name is not there any more.
            if !machine.cache().join(file).exists() {
                continue;
            }
            harm.to(&machine.cache().join(file));
            builds += 1;
            let build = machine.clone().building_in(scratch.dir(&format!("build-{builds}")));
            let end = build.compile(unit.arguments()).ok();
            assert_eq!(unit.outputs(build.build()), right, "{harm:?} of {}", file.display());
            assert_eq!(
                (end.stdout, end.stderr),
                (String::new(), said.clone()),
                "{harm:?} of {}",
                file.display()
            );
        }
    }
    let healed = machine.stats();
    let build = machine.clone().building_in(scratch.dir("build-healed"));
    build.compile(unit.arguments()).ok();
    assert_eq!(machine.stats().compiles, healed.compiles, "what was damaged is made anew, and hit again");
}

#[test]
fn with_every_file_of_the_local_store_damaged_a_program_builds_right() {
    let _turn = turn::beside_others();
    let scratch = Scratch::new("damage-all");
    let program = Modules::write(scratch.dir("source"), 4, 3);
    let right = program.right_outputs(&scratch);
    for harm in Harm::ALL {
        let machine = Machine::new(&scratch, &format!("{harm:?}"));
        program.build(&machine);
        for file in kept(&machine.cache()) {
            harm.to(&machine.cache().join(file));
        }
        for again in ["again", "healed"] {
            let build = machine.clone().building_in(scratch.dir(&format!("{harm:?}-{again}")));
            program.build(&build);
            program.check(&build);
            assert_eq!(program.outputs(build.build()), right, "{harm:?}");
        }
        let stats = machine.stats();
        assert!(stats.compiles <= 2 * program.compiles() as u64, "{harm:?} healed nothing: {stats:?}");
    }
}

#[test]
fn no_damaged_blob_of_the_server_reaches_a_compiler() {
    let _turn = turn::beside_others();
    let scratch = Scratch::new("damage-server");
    let program = Modules::write(scratch.dir("source"), 4, 3);
    let right = program.right_outputs(&scratch);
    let mut server = Server::start(&scratch);
    server.is_damaged_on_purpose();
    let build = |name: String| {
        let machine = Machine::new(&scratch, &name).remote(&server.url());
        program.build(&machine);
        program.check(&machine);
        assert_eq!(program.outputs(machine.build()), right, "{name}");
        machine.stats()
    };
    build("warm".to_owned());
    for harm in Harm::ALL {
        let blobs = server.data().join("blobs");
        let files = files_below(&blobs);
        assert!(files.len() > 20, "{files:?}");
        for file in &files {
            harm.to(&blobs.join(file));
        }
        let damaged = server.metric("pcmcache_damaged_blobs_total");
        build(format!("{harm:?}"));
        assert!(server.metric("pcmcache_damaged_blobs_total") > damaged, "{harm:?}: nobody counted");
        let mended = build(format!("{harm:?}-mended"));
        assert_eq!(mended.compiles, 0, "{harm:?}: what was published anew serves the next: {mended:?}");
    }
    assert!(!server.log().contains("panicked"), "{}", server.log());
}

#[test]
fn each_damaged_blob_of_the_server_costs_one_compile_at_most() {
    let _turn = turn::beside_others();
    let scratch = Scratch::new("damage-server-each");
    let unit = Unit::write(&scratch, "unit", 7, Weight::Headers);
    let right = unit.right_outputs(&scratch);
    let mut server = Server::start(&scratch);
    server.is_damaged_on_purpose();
    let blobs = server.data().join("blobs");
    let mut builds = 0;
    let mut build = || {
        builds += 1;
        let machine = Machine::new(&scratch, &format!("machine-{builds}")).remote(&server.url());
        machine.compile(unit.arguments()).ok();
        assert_eq!(unit.outputs(machine.build()), right);
    };
    build();
    for file in files_below(&blobs) {
        Harm::Flip.to(&blobs.join(&file));
        build();
    }
}

/// The files of a cache directory that mean something: not its locks, and nothing that was moved aside.
fn kept(cache: &Path) -> Vec<PathBuf> {
    let is_kept = |path: &PathBuf| {
        let aside = ["damaged", "locks"];
        !path.components().any(|part| aside.iter().any(|name| part.as_os_str() == *name))
    };
    files_below(cache).into_iter().filter(is_kept).collect()
}

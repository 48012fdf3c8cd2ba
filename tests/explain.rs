//! `explain` names the right cause of each kind of miss, and does nothing but look.

use std::path::{Path, PathBuf};
use std::process::Command;

use pcmcache_shared::Digest;
use pcmcache_tests::scratch::files_below;
use pcmcache_tests::tool::CLANG;
use pcmcache_tests::{Machine, Scratch, Server, turn};

/// A command that was compiled once, and what may be changed before it is explained.
struct Scene {
    root: PathBuf,
    machine: Machine,
    arguments: Vec<String>,
}

/// A kind of miss: its name, what is changed, what `explain` says.
type Miss = (&'static str, fn(&mut Scene), &'static str);

const MISSES: [Miss; 21] = [
    (
        "source",
        |scene| scene.put("src/a.cpp", "import m;\nint f() { return m(); }\n"),
        "ROOT/src/a.cpp changed (the source)",
    ),
    ("header", |scene| scene.put("inc/scale.h", "#define SCALE 2\n"), "why       ROOT/inc/scale.h changed"),
    ("header gone", |scene| scene.remove("inc/scale.h"), "ROOT/inc/scale.h is gone"),
    (
        "header found first",
        |scene| scene.put("early/scale.h", "#define SCALE 3\n"),
        "ROOT/early/scale.h is new, and would be found first",
    ),
    (
        "probe turns true",
        |scene| scene.put("inc/extra.h", ""),
        "ROOT/inc/extra.h is there now, and the source looks for it",
    ),
    (
        "probe turns false",
        |scene| scene.remove("inc/there.h"),
        "ROOT/inc/there.h is gone, and the source looks for it",
    ),
    ("flag added", |scene| scene.arguments.insert(0, "-DNDEBUG".to_owned()), "why       -DNDEBUG added"),
    ("flag gone", |scene| scene.arguments.retain(|arg| arg != "-DMODE=1"), "why       -DMODE=1 is gone"),
    ("flag changed", |scene| scene.replace("-O1", "-O2"), "why       -O2 instead of -O1"),
    (
        "value changed",
        |scene| scene.replace("-DMODE=1", "-DMODE=2"),
        "why       -DMODE=2 instead of -DMODE=1",
    ),
    ("reordered", |scene| scene.arguments.swap(1, 2), "why       the same arguments in another order"),
    (
        "depfile target",
        |scene| scene.replace("a.target", "b.target"),
        "another target in the depfile: b.target instead of a.target",
    ),
    (
        "variable",
        |scene| scene.set("CPATH", "/nowhere"),
        "why       environment: CPATH is '/nowhere', it was not set",
    ),
    (
        "directory",
        |scene| {
            let beside = scene.root.join("beside");
            scene.machine = scene.machine.clone().building_in(beside);
        },
        "why       the working directory is ROOT/beside, it was ",
    ),
    (
        "BMI of an edited source",
        |scene| {
            scene.put("src/m.cppm", "export module m;\nexport inline int m() { return 2; }\n");
            scene.make_bmi("src/m.cppm");
        },
        "why       the BMI of m differs: ROOT/src/m.cppm changed (the source)",
    ),
    (
        "BMI of another source path",
        |scene| {
            let text = fs_err::read_to_string(scene.root.join("src/m.cppm")).expect("the source");
            scene.put("copy/m.cppm", &text);
            scene.make_bmi("copy/m.cppm");
        },
        "why       the BMI of m differs: rebuilt from another source path, ROOT/copy/m.cppm instead of ROOT/src/m.cppm",
    ),
    (
        "BMI as well",
        |scene| {
            let other = format!("-fmodule-file=other={}", scene.path("m.pcm"));
            scene.arguments.insert(0, other);
        },
        "the BMI of other is loaded as well",
    ),
    ("compiler", Scene::change_compiler, "why       the compiler or a library it loads is another"),
    (
        "driver",
        |scene| scene.put("sys/usr/lib/gcc/x86_64-linux-gnu/13/crtbegin.o", ""),
        "why       the driver finds other directories, or another GCC installation; now: ",
    ),
    (
        "another source for the same output",
        |scene| {
            let text = fs_err::read_to_string(scene.root.join("src/a.cpp")).expect("the source");
            scene.put("src/b.cpp", &text);
            let (old, new) = (scene.path("src/a.cpp"), scene.path("src/b.cpp"));
            scene.replace(&old, &new);
        },
        "the source is ROOT/src/b.cpp, it was ROOT/src/a.cpp",
    ),
    (
        "removed",
        |scene| fs_err::remove_dir_all(scene.machine.cache().join("v1/results")).expect("the results"),
        "why       the result was here, and was removed since",
    ),
];

impl Scene {
    fn new(scratch: &Scratch) -> Self {
        let root = scratch.dir("project");
        let machine = Machine::new(scratch, "machine");
        let mut scene = Self { root, machine, arguments: Vec::new() };
        scene.put("inc/scale.h", "#define SCALE 1\n");
        scene.put("inc/there.h", "");
        scene.put("early/empty", "");
        scene.put("sys/usr/lib/gcc/x86_64-linux-gnu/12/crtbegin.o", "");
        scene.put("src/m.cppm", "export module m;\nexport inline int m() { return 1; }\n");
        scene.put(
            "src/a.cpp",
            "#include \"scale.h\"\n#if __has_include(\"extra.h\")\nint extra;\n#endif\n\
             #if __has_include(\"there.h\")\nint there;\n#endif\nimport m;\nint f() { return SCALE + m(); }\n",
        );
        let early = format!("-I{}", scene.path("early"));
        let inc = format!("-I{}", scene.path("inc"));
        let bmi = format!("-fmodule-file=m={}", scene.path("m.pcm"));
        let source = scene.path("src/a.cpp");
        let sysroot = format!("--sysroot={}", scene.path("sys"));
        let words = ["-std=c++23", "-DA=1", "-DB=2", "-DMODE=1", "-O1", "-g", &sysroot, &early, &inc, &bmi];
        let rest = ["-MD", "-MT", "a.target", "-MF", "a.d", "-c", &source, "-o", "a.o"];
        scene.arguments = words.iter().chain(&rest).map(|word| (*word).to_owned()).collect();
        scene.make_bmi("src/m.cppm");
        scene
    }

    fn path(&self, name: &str) -> String {
        self.root.join(name).to_string_lossy().into_owned()
    }

    fn put(&self, name: &str, text: &str) {
        let path = self.root.join(name);
        fs_err::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        fs_err::write(path, text).expect("a file");
    }

    fn remove(&self, name: &str) {
        fs_err::remove_file(self.root.join(name)).expect("a file");
    }

    fn replace(&mut self, old: &str, new: &str) {
        let word = self.arguments.iter_mut().find(|word| *word == old).expect("the argument");
        *word = new.to_owned();
    }

    fn set(&mut self, name: &str, value: &str) {
        self.machine = self.machine.clone().with(name, value);
    }

    /// Compiles an interface unit to the BMI that the command names.
    fn make_bmi(&self, source: &str) {
        let (source, bmi) = (self.path(source), self.path("m.pcm"));
        let sysroot = format!("--sysroot={}", self.path("sys"));
        self.machine.compile(["-std=c++23", "-g", &sysroot, "--precompile", &source, "-o", &bmi]).ok();
    }

    /// One of the libraries that the compiler loads becomes another one, of no other effect.
    fn change_compiler(&mut self) {
        let clang = std::env::split_paths(&std::env::var_os("PATH").expect("PATH"))
            .map(|dir| dir.join(CLANG))
            .find(|path| path.exists())
            .expect("the compiler");
        let listed = Command::new("ldd").arg(clang).output().expect("ldd");
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        let library = listed
            .lines()
            .filter_map(|line| line.split("=> ").nth(1)?.split(' ').next())
            .map(PathBuf::from)
            .find(|path| path.to_string_lossy().contains("libz."))
            .expect("a small library of the compiler");
        let mut bytes = fs_err::read(&library).expect("the library");
        bytes.extend_from_slice(b"another");
        let dir = self.root.join("lib");
        fs_err::create_dir_all(&dir).expect("a directory");
        fs_err::write(dir.join(library.file_name().expect("a name")), bytes).expect("the library");
        self.set("LD_LIBRARY_PATH", &dir.to_string_lossy());
    }

    fn explain(&self) -> String {
        explain(&self.machine, &self.arguments)
    }

    /// All that a look must leave as it is: what is stored, what was counted, what lies in the build directory.
    fn state(&self) -> Vec<(PathBuf, Digest)> {
        let cache = self.machine.cache();
        let read = |dir: &Path| {
            let dir = dir.to_owned();
            let files = files_below(&dir).into_iter().filter(|file| !file.starts_with("v1/memo"));
            files
                .map(move |file| (dir.join(&file), Digest::of(fs_err::read(dir.join(file)).expect("a file"))))
                .collect::<Vec<_>>()
        };
        [read(&cache), read(self.machine.build())].concat()
    }
}

fn explain(machine: &Machine, arguments: &[String]) -> String {
    let words = ["explain", "--", CLANG].into_iter().map(str::to_owned).chain(arguments.iter().cloned());
    let end = machine.start(machine.launcher(), words).finish().ok();
    assert_eq!(end.stderr, "", "{}", end.transcript());
    end.stdout
}

#[test]
fn the_right_cause_of_each_kind_of_miss_is_named() {
    let _turn = turn::beside_others();
    for (name, change, told) in MISSES {
        println!("{name}");
        let scratch = Scratch::new("explain");
        let mut scene = Scene::new(&scratch);
        let unknown = scene.explain();
        assert!(unknown.contains("nothing like it is known here"), "{name}: {unknown}");
        scene.machine.compile(&scene.arguments).ok();
        let hit = scene.explain();
        assert!(hit.contains("local     hit") && !hit.contains("why"), "{name}: {hit}");
        change(&mut scene);
        let before = scene.state();
        let missed = scene.explain();
        assert_eq!(before, scene.state(), "{name}: it did more than look");
        assert!(missed.contains("local     miss"), "{name}: {missed}");
        let told = told.replace("ROOT", &scene.root.to_string_lossy());
        assert!(missed.contains(&told), "{name}: not '{told}' in\n{missed}");
        let causes = missed
            .lines()
            .skip_while(|line| !line.starts_with("why"))
            .take_while(|line| !line.starts_with("nearest"));
        let most = if name == "another source for the same output" { 2 } else { 1 };
        assert!(causes.count() <= most, "{name}: more causes than there are\n{missed}");
    }
}

#[test]
fn what_is_not_cached_is_told_with_its_remedy() {
    let _turn = turn::beside_others();
    let scratch = Scratch::new("explain-bypass");
    let scene = Scene::new(&scratch);
    let with = |word: &str| [vec![word.to_owned()], scene.arguments.clone()].concat();
    let table = [
        (with("-save-temps"), "not cached: save-temps", "leave the flag out"),
        (with("--no-such-flag"), "not cached: unknown-flag: --no-such-flag", "ask for it"),
        (with("-E"), "not cached: preprocess-only", "nothing"),
    ];
    for (arguments, reason, remedy) in table {
        let said = explain(&scene.machine, &arguments);
        assert!(said.contains(reason) && said.contains("remedy: ") && said.contains(remedy), "{said}");
    }
    let (source, bmi) = (scene.path("src/m.cppm"), scene.path("m.pcm"));
    let sysroot = format!("--sysroot={}", scene.path("sys"));
    scene.machine.bare(["-std=c++23", "-g", "-DFOREIGN", &sysroot, "--precompile", &source, "-o", &bmi]).ok();
    let foreign = scene.explain();
    assert!(
        foreign.contains("not cached: foreign-bmi: ") && foreign.contains("through pcmcache"),
        "{foreign}"
    );
}

#[test]
fn a_server_is_asked_without_a_lease() {
    let _turn = turn::beside_others();
    let scratch = Scratch::new("explain-server");
    let server = Server::start(&scratch);
    let mut scene = Scene::new(&scratch);
    scene.machine = Machine::new(&scratch, "publisher").remote(&server.url());
    scene.make_bmi("src/m.cppm");
    scene.machine.compile(&scene.arguments).ok();
    let mut other = Machine::new(&scratch, "other").remote(&server.url());
    other = other.building_in(scene.machine.build().to_owned());
    let (source, bmi) = (scene.path("src/m.cppm"), scene.path("m.pcm"));
    let sysroot = format!("--sysroot={}", scene.path("sys"));
    other.compile(["-std=c++23", "-g", &sysroot, "--precompile", &source, "-o", &bmi]).ok();
    let found = explain(&other, &scene.arguments);
    assert!(found.contains("local     miss") && found.contains("server    hit"), "{found}");
    scene.replace("-O1", "-O2");
    let missed = explain(&other, &scene.arguments);
    assert!(missed.contains("server    miss"), "{missed}");
    scene.machine.compile(&scene.arguments).ok();
    assert_eq!(scene.machine.stats().waits, 0, "a look takes no lease that others would wait for");
}

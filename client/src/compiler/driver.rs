//! What the driver makes of arguments on this host, asked of the driver itself (`-###`), and remembered for as long as the
//! directories it looks through are unchanged.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use pcmcache_shared::Digest;
use pcmcache_shared::recipe::{escape, unescape};

use super::{Compiler, KEY_VARIABLES, MAX_MEMO, id_of, memo_file};
use crate::invocation::{Bypass, Invocation, response};
use crate::local::Store;
use crate::local::sealed::{self, Sealed};
use crate::os::{FileId, Moment};
use crate::search::SearchPath;

/// What the driver makes of a command's arguments on this host.
#[derive(Debug, Clone)]
pub struct Cc1 {
    /// The digest of the lines it would run.
    pub lines: Digest,
    /// Where headers are looked for.
    pub search: SearchPath,
}

impl Compiler {
    /// What the driver makes of this invocation, without what is keyed elsewhere: the
    /// source, the outputs, the BMIs, the directory the compiler runs in.
    pub fn cc1(&self, invocation: &Invocation, store: Option<&Store>, cwd: &Path) -> Result<Cc1, Bypass> {
        let args = probe_arguments(invocation);
        // What is native is asked anew each time: a cache directory may move from host to host.
        let is_native = args.iter().any(|arg| arg.ends_with("=native"));
        let store = store.filter(|_| !is_native);
        let memo = store.map(|store| memo_file(store, &self.probe_name(&args, cwd)));
        if let Some(known) = memo.as_deref().and_then(|path| read_cc1(path, cwd)) {
            return Ok(known);
        }
        let start = Moment::now();
        let cc1 = self.ask_driver(&args, cwd)?;
        if let Some(path) = memo {
            let looked_at = self.looked_at();
            if looked_at.iter().all(|path| id_of(path).is_none_or(|id| id.untouched_since(start))) {
                let _ = sealed::write(&path, write_cc1(&cc1, &looked_at).as_bytes());
            }
        }
        Ok(cc1)
    }

    fn probe_name(&self, args: &[String], cwd: &Path) -> Digest {
        let path = |path: &Path| escape(path.as_os_str().as_bytes());
        let mut text = format!("cc1\n{}\n{}\n{}\n", self.identity, path(&self.program), path(cwd));
        for arg in args {
            let _ = writeln!(text, "{}", escape(arg.as_bytes()));
        }
        // The driver turns some of them into search directories.
        for (name, value) in KEY_VARIABLES.iter().filter_map(|name| Some((name, std::env::var_os(name)?))) {
            let _ = writeln!(text, "{name}={}", escape(value.as_bytes()));
        }
        Digest::of(text)
    }

    fn ask_driver(&self, args: &[String], cwd: &Path) -> Result<Cc1, Bypass> {
        let refused = |detail: String| Bypass::new("driver-query-failed", detail);
        let output = Command::new(&self.program)
            .arg("-###")
            .args(args)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| refused(error.to_string()))?;
        let text = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            return Err(refused(text.lines().next().unwrap_or_default().to_owned()));
        }
        if text.lines().any(|line| line.starts_with("Configuration file:")) {
            return Err(Bypass::new("config-file", "the driver reads one"));
        }
        let commands = text.lines().filter(|line| line.starts_with(" \""));
        let words = commands.map(response::split).collect::<Result<Vec<_>, _>>()?.concat();
        if words.is_empty() {
            return Err(refused("the driver shows no command".to_owned()));
        }
        let holds_cwd = |word: &&String| {
            ["-fdebug-compilation-dir=", "-fcoverage-compilation-dir="]
                .iter()
                .any(|flag| word.starts_with(flag))
        };
        let keyed: Vec<&str> = words.iter().filter(|word| !holds_cwd(word)).map(String::as_str).collect();
        Ok(Cc1 { lines: Digest::of(keyed.join("\n")), search: SearchPath::of_cc1(&words, cwd) })
    }

    /// The directories whose entries decide what the driver finds: GCC installations, C++ libraries, its own
    /// configuration files.
    fn looked_at(&self) -> Vec<PathBuf> {
        let own = |relative: &str| self.directory.join(relative);
        let mut paths: Vec<PathBuf> = [
            "/usr/include",
            "/usr/include/c++",
            "/usr/local/include",
            "/usr/lib/gcc",
            "/usr/lib64/gcc",
            "/usr/lib32/gcc",
            "/usr/libx32/gcc",
            "/usr/lib/gcc-cross",
            "/usr/local/lib/gcc",
            "/opt/rh",
        ]
        .into_iter()
        .map(PathBuf::from)
        .chain([own("."), own("../include"), own("../include/c++"), own("../lib"), own("../lib/gcc")])
        .collect();
        // Installations lie two levels down: /usr/lib/gcc/TRIPLE/VERSION.
        let roots: Vec<_> = paths
            .iter()
            .filter(|path| path.ends_with("gcc") || path.ends_with("gcc-cross"))
            .cloned()
            .collect();
        for triple in roots.iter().flat_map(|root| subdirectories(root)) {
            paths
                .push(PathBuf::from("/usr/include").join(triple.file_name().unwrap_or_default()).join("c++"));
            paths.extend(subdirectories(&triple));
            paths.push(triple);
        }
        paths
    }
}

/// The arguments that the driver is asked about: those in the key, with the outputs and the source at `/dev/null`.
fn probe_arguments(invocation: &Invocation) -> Vec<String> {
    let mut args = invocation.keyed_words();
    if invocation.object.is_some() && invocation.bmi.is_some() {
        args.push("-fmodule-output=/dev/null".to_owned());
    }
    args.extend(["-x", invocation.language.word(), "/dev/null", "-o", "/dev/null"].map(str::to_owned));
    args
}

fn subdirectories(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs_err::read_dir(path) else { return Vec::new() };
    let mut paths: Vec<_> =
        entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    paths.sort();
    paths
}

fn write_cc1(cc1: &Cc1, looked_at: &[PathBuf]) -> String {
    let mut text = format!("{}\n", cc1.lines);
    for (is_system, directory) in cc1.search.lines() {
        let kind = if is_system { "system" } else { "user" };
        let _ = writeln!(text, "{kind} {}", escape(directory.as_os_str().as_bytes()));
    }
    for path in looked_at {
        let id = id_of(path).map_or_else(|| "absent".to_owned(), |id| format!("is {id}"));
        let _ = writeln!(text, "{id} {}", escape(path.as_os_str().as_bytes()));
    }
    text
}

fn read_cc1(path: &Path, cwd: &Path) -> Option<Cc1> {
    let Sealed::Whole(body) = sealed::read(path, MAX_MEMO) else { return None };
    let text = String::from_utf8(body).ok()?;
    let (digest, lines) = text.split_once('\n')?;
    let path_of = |escaped| Some(PathBuf::from(OsStr::from_bytes(&unescape(escaped)?)));
    let mut search = Vec::new();
    for line in lines.lines() {
        let (kind, rest) = line.split_once(' ')?;
        let (expected, path) = match kind {
            "system" | "user" => {
                search.push((kind == "system", path_of(rest)?));
                continue;
            }
            "is" => FileId::parse(rest).map(|(id, path)| (Some(id), path))?,
            "absent" => (None, rest),
            _ => return None,
        };
        if id_of(&path_of(path)?) != expected {
            return None;
        }
    }
    Some(Cc1 { lines: digest.parse().ok()?, search: SearchPath::from_lines(search.into_iter(), cwd) })
}

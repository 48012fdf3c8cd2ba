//! `pcmcache verify`: is what is stored what it should be, and would the compiler make the same today?

use std::fmt::Write as _;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use clap::Args;
use pcmcache_shared::{ActionKey, disk};

use crate::compiler;
use crate::launch::rebuild::{Verdict, rebuild};
use crate::local::history::Command;
use crate::local::{Kind, Store};
use crate::os;
use crate::settings::Settings;
use crate::size::ByteSize;

/// The hidden first argument that makes this program make one result again: it runs where the command ran.
pub const REBUILD: &str = "--pcmcache-rebuild";

/// Of so many results at most it is looked whether they can be made again, for each that is asked for.
const TRIES: usize = 20;

/// What is asked for.
#[derive(Debug, Args)]
pub struct Verify {
    /// Compile a sample of N results again, and compare
    #[arg(long, value_name = "N")]
    rebuild: Option<usize>,
}

impl Verify {
    /// Looks, says what was found, and fails if something was not right.
    pub fn run(&self, settings: &Settings) -> anyhow::Result<()> {
        let store = super::store(settings)?;
        let verified = store.verify();
        let mut text = String::new();
        for bad in &verified.bad {
            let _ = writeln!(text, "bad: {} {}", bad.path.display(), bad.what);
        }
        let _ = writeln!(
            text,
            "verified {} blobs ({}) and {} entries: {} bad",
            verified.blobs,
            ByteSize(verified.bytes),
            verified.entries,
            verified.bad.len()
        );
        super::say(&text)?;
        let different = self.rebuild.map_or(Ok(0), |count| rebuild_sample(&store, count))?;
        anyhow::ensure!(
            verified.bad.is_empty(),
            "what is bad was taken out of use, into {} where it could be moved; the next compile that wants it makes it \
             anew. If this happens again, look after the disk and the memory of this machine",
            store.root().join("damaged").display()
        );
        anyhow::ensure!(
            different == 0,
            "the compiler makes something else today of what the cache takes for unchanged: either it is not \
             deterministic there, or an input is not in the key; the latter is a bug of pcmcache, please report it"
        );
        Ok(())
    }
}

/// Makes results again in their random order until `count` were, and says what came of it. Gives how many differ.
fn rebuild_sample(store: &Store, count: usize) -> anyhow::Result<usize> {
    let results = store.inventory(Kind::Results).into_iter().filter_map(|found| found.name.parse().ok());
    let mut order: Vec<(u64, ActionKey)> =
        results.map(|action| (u64::from_ne_bytes(os::random()), action)).collect();
    order.sort();
    let scratch =
        std::env::temp_dir().join(format!("pcmcache-verify-{:016x}", u64::from_ne_bytes(os::random())));
    let (mut same, mut different, mut passed) = (0, 0, 0);
    for (_, action) in order.into_iter().take(count.saturating_mul(TRIES)) {
        if same + different == count {
            break;
        }
        let command = store.command(action).unwrap_or_default();
        let verdict = rebuild_elsewhere(action, &command, &scratch);
        let _ = disk::remove_dir_all(&scratch);
        match verdict? {
            Verdict::Same => same += 1,
            Verdict::NotToday(_) => passed += 1,
            Verdict::Differs(what) => {
                different += 1;
                super::say(&format!("differs: {action}\n{}{}", indented(&what), said(&command)))?;
            }
        }
    }
    super::say(&format!(
        "compiled {} results again: {same} the same, {different} different; {passed} could not be compiled again, their \
         inputs are not what they were\n",
        same + different
    ))?;
    Ok(different)
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}

fn said(command: &Command) -> String {
    let args: Vec<_> = command.args.iter().map(|arg| arg.to_string_lossy()).collect();
    format!("    in {}: {} {}\n", command.cwd.display(), command.program.display(), args.join(" "))
}

/// Runs this program again, where the command ran and with its variables.
fn rebuild_elsewhere(action: ActionKey, command: &Command, scratch: &Path) -> anyhow::Result<Verdict> {
    if !command.cwd.is_dir() {
        return Ok(Verdict::NotToday("its directory is gone".to_owned()));
    }
    disk::create_dir_all(scratch)?;
    let report = scratch.join("verdict");
    let mut child = std::process::Command::new(os::own_program());
    child.arg0("pcmcache").args([REBUILD.as_ref(), action.to_string().as_ref(), scratch.as_os_str()]);
    child.current_dir(&command.cwd).env("PWD", &command.cwd);
    for name in compiler::KEY_VARIABLES.iter().chain(compiler::GCC_VARIABLES) {
        child.env_remove(name);
    }
    child.envs(command.variables.iter().map(|(name, value)| (name, value)));
    child.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    let text = fs_err::read_to_string(report).unwrap_or_default();
    Ok(Verdict::parse(&text).unwrap_or_else(|| Verdict::NotToday("its compile did not end well".to_owned())))
}

/// The process that [`rebuild_elsewhere`] started.
pub fn run_as_rebuilder(args: &[std::ffi::OsString], settings: Settings) -> u8 {
    let [action, scratch] = args else { return 2 };
    let Some(action) = action.to_str().and_then(|action| action.parse().ok()) else { return 2 };
    let scratch = PathBuf::from(scratch);
    let verdict = rebuild(action, &scratch.join("store"), settings);
    u8::from(disk::write(scratch.join("verdict"), verdict.text()).is_err())
}

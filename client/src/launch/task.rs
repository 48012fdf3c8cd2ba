//! What one launch is about: what of it is known before anything is looked up.

use std::path::{Path, PathBuf};

use pcmcache_shared::recipe::Unit;
use pcmcache_shared::{Claim, Digest, IncludeSet, Recipe};

use super::restore::destinations;
use super::session::Session;
use crate::bases::{Bases, MARK};
use crate::compiler::{self, Compiler, Driver};
use crate::invocation::flags::Effect;
use crate::invocation::{Arg, Bypass, Family, Invocation, Kind, flags};
use crate::key::{self, Facts};
use crate::{os, stage};

/// What one launch is about.
pub(super) struct Task {
    pub(super) invocation: Invocation,
    pub(super) compiler: Compiler,
    pub(super) unit: Unit,
    pub(super) facts: Facts,
    /// The width of the terminal that the compiler would wrap its diagnostics to. They are other ones for each width, so
    /// they are neither kept nor taken from what was kept.
    pub(super) columns: Option<u32>,
    /// What the driver makes of the arguments, as far as it enters the key.
    pub(super) driver: Vec<String>,
    /// The include sets known for the unit, newest first, with the recipes that they and the present files make.
    pub(super) known: Vec<Known>,
    /// Whether the result may be taken from and given to others.
    pub(super) shareable: bool,
}

/// An include set, and the recipe it makes; none where a file of the set is missing.
pub(super) struct Known {
    pub(super) set: IncludeSet,
    pub(super) recipe: Option<Recipe>,
}

impl Task {
    /// Whether nothing is compiled.
    pub(super) fn is_scan(&self) -> bool {
        self.invocation.kind == Kind::Scan
    }

    /// What a lock or a lease is on.
    pub(super) fn claim(&self) -> Claim {
        let newest = self.known.first().and_then(|known| known.recipe.as_ref());
        newest.map_or_else(|| self.unit.key().into(), |recipe| recipe.action_key().into())
    }
}

impl Session {
    /// Finds out what the invocation's unit is.
    pub(super) fn task(&mut self, invocation: Invocation, compiler: Compiler) -> Result<Task, Bypass> {
        refuse_special_outputs(&invocation)?;
        let variables = compiler::key_variables(compiler.family, &|name| std::env::var_os(name))?;
        let colour = wants_colour(&invocation);
        let source = invocation.source_file().map(|source| self.inputs.digest(source)).transpose();
        let source = source.map_err(|error| unreadable(&error))?;
        let bmis = self.named_bmis(&invocation, source)?;
        let cwd = os::working_directory().map_err(|error| unreadable(&error))?;
        let bases = self.bases_for(&invocation, &cwd)?;
        let driver = compiler.ask(&invocation, self.store.as_ref(), &cwd, &bases)?;
        let inputs = self.digests(&driver.inputs)?;
        let columns = columns(&invocation);
        let lists_bmis = driver.lists_bmis && invocation.depfile.is_some() && invocation.may_load_bmis();
        let no_directories = warned_of(&driver, invocation.family);
        let mut identities = vec![compiler.identity];
        identities.extend(compiler.scanner.as_ref().map(|scanner| scanner.identity));
        for program in driver.programs {
            let program = Compiler::identify_program(&program, self.store.as_ref(), self.inputs.memo())?;
            identities.push(program);
        }
        self.inputs.look_in(driver.search, bases.clone());
        let facts = Facts {
            compiler: identities,
            cc1: driver.lines,
            cwd,
            variables,
            source,
            bmis,
            inputs,
            no_directories,
            lists_bmis,
            colour,
            bases,
        };
        let unit = key::unit(&invocation, &facts);
        Ok(Task {
            invocation,
            compiler,
            unit,
            facts,
            driver: driver.words,
            columns,
            known: Vec::new(),
            shareable: false,
        })
    }

    /// The base directories, if they apply to this command. GCC's depfiles and side outputs, which hold names of sources,
    /// are not written again by us. A header unit is imported by the whole name of its header, which is in it.
    fn bases_for(&self, invocation: &Invocation, cwd: &Path) -> Result<Bases, Bypass> {
        let apply = !invocation.absolute
            && invocation.extras.is_empty()
            && invocation.family == Family::Clang
            && invocation.kind != Kind::HeaderUnit;
        if self.settings.base_dirs.is_empty() || !apply {
            return Ok(Bases::default());
        }
        let words = invocation.args.iter().flat_map(Arg::words);
        let named = words.chain([invocation.source.to_string_lossy().into_owned()]);
        match named.into_iter().find(|word| word.contains(MARK)) {
            Some(word) => Err(Bypass::new("base-mark", word)),
            None => Ok(self.settings.base_dirs.at(cwd)),
        }
    }

    fn digests(&mut self, paths: &[PathBuf]) -> Result<Vec<(PathBuf, Digest)>, Bypass> {
        let digest = |path: &PathBuf| Ok((path.clone(), self.inputs.digest(path)?));
        paths.iter().map(digest).collect::<std::io::Result<_>>().map_err(|error| unreadable(&error))
    }

    /// The BMIs that the command names, and for a BMI as the source those that it loads: nothing tells us about these
    /// while it is compiled.
    fn named_bmis(
        &mut self,
        invocation: &Invocation,
        source: Option<Digest>,
    ) -> Result<Vec<(String, Digest)>, Bypass> {
        let mut named: Vec<(String, PathBuf)> =
            invocation.bmis.iter().map(|bmi| (bmi.module.clone(), bmi.path.clone())).collect();
        if invocation.kind == Kind::BmiToObject && !invocation.prebuilt_paths.is_empty() {
            let unknown = || Bypass::new("foreign-bmi", invocation.source.to_string_lossy());
            let embedded = self.store.as_ref().zip(source).and_then(|(store, bmi)| store.embedded(bmi));
            for module in embedded.ok_or_else(unknown)?.imports {
                if !named.iter().any(|(name, _)| *name == module) {
                    let path = self.inputs.find_bmi(invocation, &module).ok_or_else(unknown)?;
                    named.push((module, path));
                }
            }
        }
        let digest = |(module, path): (String, PathBuf)| Ok((module, self.inputs.digest(&path)?));
        named.into_iter().map(digest).collect::<std::io::Result<_>>().map_err(|error| unreadable(&error))
    }
}

fn unreadable(error: &std::io::Error) -> Bypass {
    Bypass::new("unreadable-input", error.to_string())
}

/// A rename onto a device, a directory or a link would not do what the compiler does.
fn refuse_special_outputs(invocation: &Invocation) -> Result<(), Bypass> {
    let outputs = destinations(invocation).into_iter().map(|(_, path)| path);
    match outputs.into_iter().find(|path| !stage::is_replaceable(path)) {
        Some(path) => Err(Bypass::new("special-output", path.display().to_string())),
        None => Ok(()),
    }
}

/// The directories of headers that are none and that the compiler warns of. GCC always does if there is something else.
fn warned_of(driver: &Driver, family: Family) -> Vec<(PathBuf, bool)> {
    let asks = |word: &String| word == "-Weverything" || word.contains("missing-include-dirs");
    let asked = driver.words.iter().any(asks);
    if !asked && family == Family::Clang {
        return Vec::new();
    }
    let warned = driver.search.no_directories().filter(|(_, is_other)| asked || *is_other);
    warned.map(|(path, is_other)| (path.to_owned(), is_other)).collect()
}

/// The width that the compiler would wrap its diagnostics to, had it seen the terminal that we stand before.
fn columns(invocation: &Invocation) -> Option<u32> {
    let says = |arg: &Arg| arg.words().iter().any(|word| word.starts_with("-fmessage-length="));
    let wraps = invocation.family == Family::Clang && invocation.kind != Kind::Scan;
    os::stderr_columns().filter(|_| wraps && !invocation.args.iter().any(says))
}

/// Whether the compiler would have coloured its diagnostics, had it seen the terminal that we stand before. A scanner
/// never does.
fn wants_colour(invocation: &Invocation) -> bool {
    if invocation.kind == Kind::Scan {
        return false;
    }
    let says = |arg: &Arg| match arg {
        Arg::Key(words) => words.iter().any(|word| {
            word.contains("color")
                && flags::find(word, invocation.family).is_some_and(|(_, effect, _)| effect == Effect::Key)
        }),
        Arg::Path(_)
        | Arg::PrefixMap { .. }
        | Arg::Quiet(_)
        | Arg::Bmi(_)
        | Arg::PrebuiltPath(_)
        | Arg::Action(_)
        | Arg::Source => false,
    };
    let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    !dumb && !refused && os::stderr_is_terminal() && !invocation.args.iter().any(says)
}

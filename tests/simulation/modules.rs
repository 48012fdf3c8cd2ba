//! What is compiled: modules whose outputs a test can make, name and recognise.

use std::path::{Path, PathBuf};

use pcmcache_shared::api::acquire::KnownSet;
use pcmcache_shared::api::actions::PublishRequest;
use pcmcache_shared::api::leases::Hold;
use pcmcache_shared::recipe::{Learnt, Unit};
use pcmcache_shared::{
    ActionKey, ActionResult, Claim, Cost, Digest, IncludeSet, Output, Recipe, Role, Scope,
};

/// Sizes of BMIs: what travels inside JSON, what travels as a blob, what takes many pieces.
const SIZES: [usize; 4] = [60, 3_000, 20_000, 200_000];

/// A module, as all hosts have its source.
#[derive(Debug, Clone)]
pub(crate) struct Module {
    /// What people call it.
    pub(crate) name: String,
    /// Whether hosts know what it includes before they have compiled it.
    pub(crate) is_known: bool,
    /// What it takes to compile it, in milliseconds.
    pub(crate) cost_ms: u64,
    size: usize,
}

impl Module {
    /// The module of this number; `size` chooses how large its BMI is.
    pub(crate) fn new(number: u64, is_known: bool, cost_ms: u64, size: u64) -> Self {
        let size = SIZES[size as usize % SIZES.len()];
        Self { name: format!("m{number}"), is_known, cost_ms, size }
    }

    fn text(&self) -> Unit {
        let mut unit = Unit::new();
        unit.source(Path::new(&self.name), Digest::of(&self.name));
        unit
    }

    /// What is learnt by compiling it.
    pub(crate) fn set(&self) -> IncludeSet {
        [Learnt::File(format!("/{}.h", self.name).into())].into_iter().collect()
    }

    fn recipe(&self) -> Recipe {
        Recipe::new(&self.text(), &self.set(), |_| Some(Digest::of("header"))).expect("a recipe")
    }

    /// What its result is stored under.
    pub(crate) fn action(&self) -> ActionKey {
        self.recipe().action_key()
    }

    /// Its unit's key.
    pub(crate) fn unit(&self) -> pcmcache_shared::UnitKey {
        self.text().key()
    }

    /// All claims that its build may be leased by.
    pub(crate) fn claims(&self) -> [Claim; 2] {
        [self.action().into(), self.unit().into()]
    }

    /// What a host that knows its set says so by.
    pub(crate) fn known(&self) -> KnownSet {
        KnownSet { set: self.set().digest(), action: Some(self.action()) }
    }

    /// What a compiler makes of it: the same each time, unless it is one that never makes the same twice (`variant`).
    pub(crate) fn build(&self, scope: &Scope, variant: u64) -> Vec<(Role, Vec<u8>)> {
        let head = format!("{scope} {} {variant}: ", self.name);
        let mut bmi = head.repeat(self.size / head.len() + 1).into_bytes();
        bmi.truncate(self.size.max(head.len()));
        vec![(Role::Bmi, bmi), (Role::Object, format!("object of {head}").into_bytes())]
    }

    /// The result with these outputs.
    pub(crate) fn result(&self, outputs: &[(Role, Vec<u8>)], builder: &str) -> ActionResult {
        let output = |(role, bytes): &(Role, Vec<u8>)| Output {
            role: *role,
            digest: Digest::of(bytes),
            size: bytes.len() as u64,
        };
        ActionResult {
            outputs: outputs.iter().map(output).collect(),
            cost: Cost { wall_ms: self.cost_ms },
            builder: builder.to_owned(),
            signature: None,
        }
    }

    /// How it is published.
    pub(crate) fn publication(
        &self,
        result: ActionResult,
        claim: Claim,
        lease: Option<Hold>,
    ) -> PublishRequest {
        let (recipe, include_set) = (self.recipe().text().to_owned(), self.set().text());
        PublishRequest { result, recipe, include_set, claim, lease }
    }
}

/// A directory of outputs by their names. What is there is never written again.
#[derive(Debug, Clone)]
pub(crate) struct Outputs(PathBuf);

impl Outputs {
    /// Those in this directory.
    pub(crate) fn new(directory: PathBuf) -> Self {
        Self(directory)
    }

    /// Where one lies.
    pub(crate) fn path(&self, digest: Digest) -> PathBuf {
        self.0.join(digest.to_string())
    }

    /// Puts these there.
    pub(crate) fn put(&self, outputs: &[(Role, Vec<u8>)]) {
        for (_, bytes) in outputs {
            let path = self.path(Digest::of(bytes));
            if !path.exists() {
                // Another thread's world may want the same.
                let stage = path.with_extension(format!("{:?}", std::thread::current().id()));
                fs_err::write(&stage, bytes).expect("an output");
                fs_err::rename(&stage, &path).expect("an output");
            }
        }
    }
}

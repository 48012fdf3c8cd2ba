//! What someone sees under a scope, and the right to write there.

use std::sync::Arc;

use pcmcache_shared::{Scope, Writer};

use crate::clock::Moment;

/// What someone sees under a scope: that scope, then those that are readable beside it. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View(Arc<Seen>);

#[derive(Debug, PartialEq, Eq)]
struct Seen {
    scope: Scope,
    /// The same one first, then the others in their order.
    scopes: Vec<Scope>,
    asker: Vec<Writer>,
    writes: bool,
    until: Option<Moment>,
}

impl View {
    /// The first scope is the one that was asked for; whether it may be written follows from who asks.
    pub(super) fn new(scopes: Vec<Scope>, asker: Vec<Writer>, writes: bool, until: Option<Moment>) -> Self {
        let scope = scopes.first().cloned().unwrap_or_default();
        Self(Arc::new(Seen { scope, scopes, asker, writes, until }))
    }

    /// The scope that was asked for, where all writing happens.
    pub fn scope(&self) -> &Scope {
        &self.0.scope
    }

    /// All that is seen: the scope, then the others in the order they are looked at.
    pub fn scopes(&self) -> &[Scope] {
        &self.0.scopes
    }

    /// Those beside the scope.
    pub fn beyond(&self) -> &[Scope] {
        self.0.scopes.get(1..).unwrap_or_default()
    }

    /// The names under which whoever looks can be revoked.
    pub fn asker(&self) -> &[Writer] {
        &self.0.asker
    }

    /// Whose uploads to the scope are seen too, before a result names them: one's own.
    pub fn uploader(&self) -> Option<&Writer> {
        self.0.asker.first().filter(|_| self.0.writes)
    }

    /// When the right to look ends.
    pub fn until(&self) -> Option<Moment> {
        self.0.until
    }

    /// The right to write in the scope, for whoever has it.
    pub fn writing(&self) -> Option<Writing> {
        let uploader = self.uploader()?.clone();
        Some(Writing { view: self.clone(), uploader })
    }
}

/// The right to write in the scope of a view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Writing {
    view: View,
    uploader: Writer,
}

impl Writing {
    /// What the writer sees.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// The scope to write in.
    pub fn scope(&self) -> &Scope {
        self.view.scope()
    }

    /// The names under which what is written can be taken back.
    pub fn writers(&self) -> &[Writer] {
        self.view.asker()
    }

    /// The one that blobs are uploaded under.
    pub fn uploader(&self) -> &Writer {
        &self.uploader
    }
}

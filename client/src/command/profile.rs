//! `pcmcache profile`: which results a build used, for `pcmcache warm` on other machines.

use std::fmt::Write as _;

use anyhow::{Context, bail, ensure};
use clap::Subcommand;
use pcmcache_shared::ProfileName;
use pcmcache_shared::api::limits::MAX_PROFILE;
use pcmcache_shared::api::profiles::PushRequest;

use crate::settings::{Mode, Settings};

/// What is asked for.
#[derive(Debug, Subcommand)]
pub enum Profile {
    /// Publish which results launches used under PCMCACHE_PROFILE=NAME, in place of what was there
    Push {
        /// The profile [default: PCMCACHE_PROFILE]
        name: Option<ProfileName>,
        /// A profile whose results are fetched after these; may be given more than once
        #[arg(long, value_name = "PARENT")]
        inherit: Vec<ProfileName>,
    },
    /// Show what the server has under a name, and what was noted here
    Show {
        /// The profile [default: PCMCACHE_PROFILE]
        name: Option<ProfileName>,
    },
    /// Forget which results were noted here, so that a push has only those of the builds to come
    Clear {
        /// The profile [default: PCMCACHE_PROFILE]
        name: Option<ProfileName>,
    },
}

impl Profile {
    /// Does what is asked for, and says what came of it.
    pub fn run(&self, settings: &Settings) -> anyhow::Result<()> {
        let store = super::store(settings)?;
        let named = |name: &Option<ProfileName>| {
            let name = name.clone().or_else(|| settings.profile.clone());
            name.context("which profile? Name one, or set PCMCACHE_PROFILE")
        };
        match self {
            Self::Push { name, inherit } => push(settings, &named(name)?, inherit),
            Self::Show { name } => show(settings, &named(name)?),
            Self::Clear { name } => {
                let name = named(name)?;
                let had_any = store.forget_notes(&name).context("cannot forget the notes")?;
                super::say(&match had_any {
                    true => format!("nothing is noted for '{name}' any more\n"),
                    false => format!("nothing was noted for '{name}'\n"),
                })
            }
        }
    }
}

fn push(settings: &Settings, name: &ProfileName, inherit: &[ProfileName]) -> anyhow::Result<()> {
    ensure!(settings.mode != Mode::ReadOnly, "PCMCACHE_MODE=read-only publishes nothing");
    let mut actions = super::store(settings)?.noted_uses(name).context("cannot read what was noted")?;
    if actions.is_empty() && inherit.is_empty() {
        bail!("no launch has noted anything for '{name}': build with PCMCACHE_PROFILE={name} first");
    }
    if actions.len() > MAX_PROFILE {
        // The newest: of what was used long ago the least is used still.
        let too_many = actions.len() - MAX_PROFILE;
        actions.drain(..too_many);
        super::warn(&format!(
            "{too_many} results are too many for a profile; those that were noted first are left out"
        ));
    }
    let request = PushRequest { inherits: inherit.to_vec(), actions };
    let pushed = super::server(settings)?
        .push_profile(name, &request, &|| false)
        .with_context(|| format!("cannot push the profile '{name}' to the scope {}", settings.scope))?;
    let mut text = format!("pushed '{name}' to the scope {}: {} results", settings.scope, pushed.kept);
    if pushed.unknown > 0 {
        let _ = write!(text, "; {} were left out, the server does not have them", pushed.unknown);
    }
    super::say(&(text + "\n"))
}

fn show(settings: &Settings, name: &ProfileName) -> anyhow::Result<()> {
    let noted = super::store(settings)?.noted_uses(name).context("cannot read what was noted")?.len();
    let found = super::server(settings)?
        .profile(name, &|| false)
        .with_context(|| format!("cannot ask for the profile '{name}'"))?;
    let mut text = match found {
        None => format!("there is no profile '{name}'\n"),
        Some(found) => {
            let parents: Vec<_> = found.inherits.iter().map(ProfileName::as_str).collect();
            let parents =
                if parents.is_empty() { String::new() } else { format!(", inherits {}", parents.join(", ")) };
            format!("'{name}' in the scope {}: {} results{parents}\n", found.scope, found.actions.len())
        }
    };
    let _ = writeln!(text, "noted here: {noted} results");
    super::say(&text)
}

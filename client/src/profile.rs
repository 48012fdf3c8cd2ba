//! What profiles name, those that they inherit included. Pure.

use std::collections::{HashSet, VecDeque};

use pcmcache_shared::api::profiles::Profile;
use pcmcache_shared::{ActionKey, ProfileName};

/// The most profiles that are asked for in all: whoever inherits from themselves, or from everyone, comes to an end.
const MAX_PROFILES: usize = 32;
/// The most results that are named in all.
const MAX_ACTIONS: usize = 500_000;

/// What profiles name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Named {
    /// The results, each once, the most urgent first.
    pub actions: Vec<ActionKey>,
    /// The profiles that are there.
    pub found: Vec<ProfileName>,
    /// Those that are not.
    pub missing: Vec<ProfileName>,
}

/// Asks for the profiles of these names, then for those that they inherit, then for what these inherit.
pub fn resolve<E>(
    names: &[ProfileName],
    mut ask: impl FnMut(&ProfileName) -> Result<Option<Profile>, E>,
) -> Result<Named, E> {
    let (mut named, mut seen) = (Named::default(), HashSet::new());
    let (mut asked, mut open) = (HashSet::new(), VecDeque::from(names.to_vec()));
    while let Some(name) = open.pop_front() {
        if asked.len() == MAX_PROFILES || !asked.insert(name.clone()) {
            continue;
        }
        let Some(profile) = ask(&name)? else {
            named.missing.push(name);
            continue;
        };
        named.found.push(name);
        open.extend(profile.inherits);
        let new = profile.actions.into_iter().filter(|action| seen.insert(*action));
        let room = MAX_ACTIONS - named.actions.len();
        named.actions.extend(new.take(room));
    }
    Ok(named)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use pcmcache_shared::Scope;

    use super::*;

    fn name(text: &str) -> ProfileName {
        text.parse().unwrap()
    }

    fn profile(inherits: &[&str], actions: &[&str]) -> Profile {
        Profile {
            scope: Scope::default(),
            inherits: inherits.iter().map(|text| name(text)).collect(),
            actions: actions.iter().map(ActionKey::of).collect(),
        }
    }

    fn resolved(names: &[&str], there: &[(&str, Profile)]) -> (Named, usize) {
        let names: Vec<_> = names.iter().map(|text| name(text)).collect();
        let mut count = 0;
        let named = resolve(&names, |asked| {
            count += 1;
            let found = there.iter().find(|(of, _)| asked.as_str() == *of);
            Ok::<_, Infallible>(found.map(|(_, profile)| profile.clone()))
        });
        (named.unwrap(), count)
    }

    #[test]
    fn what_is_asked_for_comes_first_and_what_is_inherited_after_it() {
        let there = [
            ("feature", profile(&["main"], &["f", "a"])),
            ("docs", profile(&["main"], &["d"])),
            ("main", profile(&["base", "gone"], &["a", "m"])),
            ("base", profile(&["main"], &["b", "f"])),
        ];
        let (named, asked) = resolved(&["feature", "docs"], &there);
        assert_eq!(named.actions, ["f", "a", "d", "m", "b"].map(ActionKey::of));
        assert_eq!(named.found, ["feature", "docs", "main", "base"].map(name));
        assert_eq!((named.missing, asked), (vec![name("gone")], 5));
        let (named, _) = resolved(&["new-branch", "main"], &there);
        assert_eq!(named.actions, ["a", "m", "b", "f"].map(ActionKey::of));
    }

    #[test]
    fn profiles_without_end_come_to_one() {
        let mut count = 0;
        let named = resolve(&[name("p0")], |_| {
            let next = (1..4).map(|n| name(&format!("p{count}-{n}"))).collect();
            count += 1;
            Ok::<_, Infallible>(Some(Profile { inherits: next, ..profile(&[], &["a"]) }))
        });
        assert_eq!((named.unwrap().actions, count), (vec![ActionKey::of("a")], MAX_PROFILES));
    }
}

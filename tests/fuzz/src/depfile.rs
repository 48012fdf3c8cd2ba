//! Depfiles and include graphs of compilers. What is understood is written again to the byte, and both readers of rules name
//! the same files.

use pcmcache::depfile::{Rules, files_in_graph, files_in_rules};

pub(crate) fn run(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else { return };
    for [name, below_root] in files_in_graph(text, "/root/").unwrap_or_default() {
        assert!(text.contains(&name) && below_root.ends_with(&name));
    }
    let named = files_in_rules(text);
    let Some(rules) = Rules::parse(text) else { return };
    assert_eq!(rules.text(), text);
    assert_eq!(rules.clone().spelled(str::to_owned).text(), text);
    // Of a target with a colon that ends no word the two differ on where it ends, and the stricter one decides.
    let (target, _) = text.split_once(':').expect("rules have a target");
    if text[target.len() + 1..].starts_with([' ', '\n']) {
        assert_eq!(named.as_ref(), Some(&rules.files));
    }
    for dropped in [0, rules.files.len() / 2, rules.files.len().saturating_sub(1)] {
        let Some(gone) = rules.files.get(dropped) else { continue };
        let left = rules.clone().without(|file| file == gone);
        assert!(!left.files.contains(gone));
        let again = Rules::parse(&left.text()).expect("what we write can be read");
        assert_eq!((again.text(), &again.files), (left.text(), &left.files));
    }
}

//! Texts of sources and headers: probes, directives, what is joined and pasted. They are of any user's making, and large.

use pcmcache::probes::{self, Text};
use pcmcache::search::SearchPath;

use crate::parts;

pub(crate) fn run(input: &[u8]) {
    let parts = parts::of(input);
    let joined: Vec<Vec<u8>> = parts.iter().map(|part| probes::joined(part.to_vec())).collect();
    for (part, joined) in parts.iter().zip(&joined) {
        assert!(joined.len() <= part.len() && !joined.contains(&b'\r'));
        if !part.contains(&b'\\') && !part.contains(&b'\r') {
            assert_eq!(joined, part);
        }
        let included = probes::included(joined);
        let text = String::from_utf8_lossy(joined);
        assert!(included.names.iter().all(|name| text.contains(name.as_str())));
        probes::imports_files(joined);
        probes::has_part_of(joined, &["__has_include", "__has_embed", "__TIME__"]);
        let words: Vec<String> = text.lines().map(str::to_owned).collect();
        let cwd = "/somewhere".as_ref();
        let (clang, gcc) = (SearchPath::of_cc1(&words, cwd), SearchPath::of_gcc(&words, &text, cwd));
        assert!(clang.lines().chain(gcc.lines()).all(|(_, directory)| directory.is_absolute()));
    }
    // The last text is the system's.
    let last = joined.len() - 1;
    let texts: Vec<Text<'_>> = joined
        .iter()
        .enumerate()
        .map(|(number, bytes)| Text { bytes, is_system: number > 0 && number == last })
        .collect();
    match probes::find(&texts, &["HEADER", "linux"]) {
        Ok(found) => {
            for (number, probe) in found {
                assert!(String::from_utf8_lossy(texts[number].bytes).contains(&probe.name));
            }
        }
        Err(refused) => assert!(!texts[refused.text].is_system),
    }
}

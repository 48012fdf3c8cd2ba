//! The page and what it loads: all of it is in the binary, so that a browser asks this host and no other.

use pcmcache_shared::Digest;

/// What the browser may do with the page: load what this server gives, and nothing else from anywhere.
pub const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                          base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A file of the page.
#[derive(Debug)]
pub struct Asset {
    /// Its name under `/dashboard/`.
    pub name: &'static str,
    /// Its media type.
    pub content_type: &'static str,
    /// Its bytes.
    pub bytes: &'static [u8],
}

impl Asset {
    /// Changes with the bytes: a browser keeps them, and asks each time whether they are still these.
    pub fn etag(&self) -> String {
        format!("\"{}\"", Digest::of(self.bytes))
    }
}

/// The page itself. It says nothing of this server; what it shows it asks for.
pub const PAGE: Asset =
    Asset { name: "", content_type: "text/html; charset=utf-8", bytes: include_bytes!("page.html") };

const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";

const ASSETS: &[Asset] = &[
    Asset { name: "page.js", content_type: SCRIPT, bytes: include_bytes!("page.js") },
    Asset { name: "charts.js", content_type: SCRIPT, bytes: include_bytes!("charts.js") },
    Asset { name: "words.js", content_type: SCRIPT, bytes: include_bytes!("words.js") },
    Asset { name: "page.css", content_type: STYLE, bytes: include_bytes!("page.css") },
    Asset { name: "icon.svg", content_type: "image/svg+xml", bytes: include_bytes!("icon.svg") },
    Asset { name: "uplot.js", content_type: SCRIPT, bytes: include_bytes!("uplot/uPlot.iife.min.js") },
    Asset { name: "uplot.css", content_type: STYLE, bytes: include_bytes!("uplot/uPlot.min.css") },
];

/// The file of this name.
pub fn asset(name: &str) -> Option<&'static Asset> {
    ASSETS.iter().find(|asset| asset.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_loads_what_is_there_and_everything_that_is_there() {
        let text = |asset: &Asset| String::from_utf8(asset.bytes.to_vec()).unwrap();
        let loaded = ASSETS.iter().filter(|asset| asset.name != "uplot.js").map(text);
        let all: String = loaded.chain([text(&PAGE)]).collect();
        for asset in ASSETS {
            assert!(
                all.contains(&format!("dashboard/{}\"", asset.name))
                    || all.contains(&format!("./{}\"", asset.name)),
                "{}",
                asset.name
            );
        }
        for named in all.split("dashboard/").skip(1).filter_map(|rest| rest.split('"').next()) {
            assert!(asset(named).is_some(), "{named}");
        }
    }

    /// No data leaves the host: nothing names another one, and no code or style stands in the page, which the policy refuses.
    #[test]
    fn nothing_of_it_comes_from_elsewhere() {
        for asset in ASSETS.iter().chain([&PAGE]) {
            let text = String::from_utf8(asset.bytes.to_vec()).unwrap();
            let urls =
                text.split("//").skip(1).filter(|rest| rest.starts_with(|c: char| c.is_ascii_alphanumeric()));
            let elsewhere: Vec<_> = urls
                .filter(|rest| {
                    !rest.starts_with("www.w3.org/2000/svg") && !rest.starts_with("github.com/leeoniya/uPlot")
                })
                .collect();
            assert!(elsewhere.is_empty(), "{}: {elsewhere:?}", asset.name);
        }
        let page = String::from_utf8(PAGE.bytes.to_vec()).unwrap();
        let attributes =
            page.split_ascii_whitespace().filter_map(|word| word.split_once("=\"")).map(|(name, _)| name);
        let code = attributes.filter(|name| name.starts_with("on") || *name == "style").collect::<Vec<_>>();
        assert!(code.is_empty() && !page.contains("<style"), "{code:?}");
    }

    /// The vendored library is the file that its README says it is.
    #[test]
    fn the_library_is_the_one_that_was_looked_at() {
        let readme = include_str!("uplot/README.md");
        for name in ["uplot.js", "uplot.css"] {
            let digest = Digest::of(asset(name).unwrap().bytes).to_string();
            assert!(readme.contains(&digest), "{name} is {digest}");
        }
    }
}

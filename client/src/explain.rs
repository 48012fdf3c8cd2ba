//! Why a command misses: the difference between its recipe and the nearest one that is known, in words. Pure.

mod bypass;
mod cause;
mod parts;

pub use bypass::Advice;
pub use cause::Cause;
pub use parts::Parts;

/// What differs between a recipe that was and one that is, the weightiest first. The driver's words are given where they
/// are known: what of them follows from other differences is not told again.
pub fn differences(then: &Parts, now: &Parts, driver: Option<(&[String], &[String])>) -> Vec<Cause> {
    let mut causes = unit_differences(then, now);
    if then.driver != now.driver && causes.is_empty() {
        let (gone, new) =
            driver.map_or_else(Default::default, |(then, now)| parts::without_common(then, now));
        causes.push(Cause::Driver { gone, new });
    }
    causes.extend(read_differences(then, now));
    causes.sort_by_key(|cause| std::cmp::Reverse(cause.weight()));
    causes
}

/// How far apart two recipes are.
pub fn distance(causes: &[Cause]) -> u32 {
    causes.iter().map(Cause::weight).sum()
}

fn unit_differences(then: &Parts, now: &Parts) -> Vec<Cause> {
    let mut causes = Vec::new();
    if then.compilers != now.compilers {
        causes.push(Cause::Compiler);
    }
    causes.extend(argument_differences(&then.args, &now.args));
    if then.output != now.output {
        causes.push(Cause::Output { then: then.output.clone(), now: now.output.clone() });
    }
    for (name, then, now) in parts::changed(&then.variables, &now.variables) {
        causes.push(Cause::Variable { name: name.clone(), then: then.cloned(), now: now.cloned() });
    }
    // Whether the directory matters at all follows from the arguments and the variables.
    if then.cwd != now.cwd && (causes.is_empty() || then.cwd.is_some() == now.cwd.is_some()) {
        causes.push(Cause::Directory { then: then.cwd.clone(), now: now.cwd.clone() });
    }
    causes
}

/// What was read, and what is there to read now.
fn read_differences(then: &Parts, now: &Parts) -> Vec<Cause> {
    let mut causes = Vec::new();
    match (&then.source, &now.source) {
        (Some((old, _)), Some((new, _))) if old != new => {
            causes.push(Cause::SourcePath { then: old.clone(), now: new.clone() });
        }
        (Some((path, old)), Some((_, new))) if old != new => causes.push(Cause::Source(path.clone())),
        (Some(_) | None, Some(_) | None) => {}
    }
    for (path, ..) in parts::changed(&then.inputs, &now.inputs) {
        causes.push(Cause::Input(path.clone()));
    }
    for (module, then, now) in parts::changed(&then.bmis, &now.bmis) {
        causes.push(match (then, now) {
            (Some(then), Some(now)) => {
                Cause::Bmi { module: module.clone(), then: then.clone(), now: now.clone(), why: None }
            }
            (Some(_), None) => Cause::BmiGone(module.clone()),
            (None, _) => Cause::BmiNew(module.clone()),
        });
    }
    for (path, old, new) in parts::changed(&then.files, &now.files) {
        causes.push(match (old, new) {
            (Some(_), Some(_)) => Cause::Header(path.clone()),
            // Told below, as what it was to the source.
            (Some(_), None) if then.present.contains(path) && !now.present.contains(path) => continue,
            (Some(_), None) => Cause::HeaderGone(path.clone()),
            (None, _) => Cause::HeaderNew(path.clone()),
        });
    }
    causes.extend(now.newcomers.iter().cloned().map(Cause::Newcomer));
    causes.extend(then.absent.difference(&now.absent).cloned().map(Cause::ProbeTrue));
    causes.extend(then.present.difference(&now.present).cloned().map(Cause::ProbeFalse));
    causes
}

fn argument_differences(then: &[String], now: &[String]) -> Vec<Cause> {
    let mut causes = Vec::new();
    let (then, old_target) = parts::take_target(then);
    let (now, new_target) = parts::take_target(now);
    let (mut gone, mut new) = parts::without_common(&then, &now);
    if gone.is_empty() && new.is_empty() && then != now {
        causes.push(Cause::Reordered);
    }
    gone.retain(|old| match new.iter().position(|word| parts::stem(word) == parts::stem(old)) {
        Some(at) => {
            causes.push(Cause::Instead { then: old.clone(), now: new.remove(at) });
            false
        }
        None => true,
    });
    causes.extend(gone.into_iter().map(Cause::Removed));
    causes.extend(new.into_iter().map(Cause::Added));
    match (old_target, new_target) {
        (Some(then), Some(now)) if then != now => causes.push(Cause::Target { then, now }),
        (Some(_) | None, Some(_) | None) => {}
    }
    causes
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = "schema 1\ncompiler c\ncc1 d\ncwd /b\narg -O2\narg -g\narg -MD\narg -MT\narg a.o\n\
                        env CPATH=/x\nsource s /a.cpp\nbmi m1 m\n\nabsent /e.h\nfile h /h.h\npresent /p.h\n";

    fn words(change: impl Fn(&str) -> String) -> Vec<String> {
        let (then, now) = (Parts::parse(BASE), Parts::parse(&change(BASE)));
        differences(&then, &now, None).iter().map(Cause::to_string).collect()
    }

    #[test]
    fn each_part_that_differs_is_told() {
        let table = [
            ("compiler c", "compiler x", "the compiler or a library it loads is another"),
            ("arg -O2\n", "arg -O0\n", "-O0 instead of -O2"),
            ("arg -O2\n", "", "-O2 is gone"),
            ("arg -O2\n", "arg -O2\narg -DNDEBUG\n", "-DNDEBUG added"),
            ("arg -O2\narg -g\n", "arg -g\narg -O2\n", "the same arguments in another order"),
            ("arg a.o", "arg b.o", "another target in the depfile: b.o instead of a.o"),
            ("cwd /b", "cwd /c", "the working directory is /c, it was /b: an output holds it"),
            ("CPATH=/x", "CPATH=/y", "environment: CPATH is '/y', it was '/x'"),
            ("env CPATH=/x\n", "", "environment: CPATH is not set, it was '/x'"),
            ("source s", "source t", "/a.cpp changed (the source)"),
            ("source s /a.cpp", "source s /c.cpp", "the source is /c.cpp, it was /a.cpp"),
            ("bmi m1", "bmi m2", "the BMI of m differs"),
            ("bmi m1 m\n", "", "the BMI of m is not loaded any more, or not found"),
            ("file h", "file i", "/h.h changed"),
            ("file h /h.h\n", "", "/h.h is gone, or not read any more"),
            ("absent /e.h\n", "", "/e.h is there now, and the source looks for it"),
            ("present /p.h\n", "", "/p.h is gone, and the source looks for it"),
            ("cc1 d", "cc1 e", "the driver finds other directories, or another GCC installation"),
        ];
        for (old, new, told) in table {
            assert_eq!(words(|base| base.replace(old, new)), [told], "{old} -> {new}");
        }
        assert!(words(str::to_owned).is_empty());
    }

    #[test]
    fn what_follows_from_an_argument_is_not_told_of_the_driver() {
        let told = words(|base| base.replace("cc1 d", "cc1 e").replace("arg -O2", "arg -O1"));
        assert_eq!(told, ["-O1 instead of -O2"]);
    }
}

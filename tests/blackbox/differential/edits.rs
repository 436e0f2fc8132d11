//! Random edits of a script, in the model and in the context.

use std::fs::{self, File, FileTimes};
use std::time::{Duration, SystemTime};

use super::script::{CONTENTS, DIRS, MODES, Script};
use super::step::{FLAGS, PROGRAMS, What};
use crate::support::Context;

/// Files that an instruction may name: a build without them fails.
const NAMED: [&str; 2] = ["a/1.txt", "b/sub/5"];

impl Script {
    /// Changes something; returns what.
    pub(super) fn edit(&mut self, context: &Context) -> String {
        match self.random.below(12) {
            0 | 1 => self.change_content(context),
            2 => self.change_mode(context),
            3 => self.add_file(context),
            4 => self.remove_file(context),
            5 => self.rename_file(context),
            6 => self.touch_file(context),
            7 => self.change_value(),
            8 => self.edit_copy(),
            9 => self.reorder(),
            10 => self.change_unused(context),
            _ => self.edit_run(),
        }
    }

    fn any_path(&mut self, may_go: bool) -> String {
        let is_fine = |path: &&String| !may_go || !NAMED.contains(&path.as_str());
        let paths: Vec<&String> = self.files.keys().filter(is_fine).collect();
        paths[self.random.below(paths.len())].clone()
    }

    fn change_content(&mut self, context: &Context) -> String {
        let path = self.any_path(false);
        let content = self.random.below(CONTENTS.len());
        self.files.get_mut(&path).unwrap().content = content;
        self.write(context, &path);
        format!("content of {path}: {content}")
    }

    fn change_mode(&mut self, context: &Context) -> String {
        let path = self.any_path(false);
        let mode = MODES[self.random.below(MODES.len())];
        let file = self.files.get_mut(&path).unwrap();
        if !file.is_link {
            file.mode = mode;
        }
        self.write(context, &path);
        format!("mode of {path}: {mode:o}")
    }

    fn add_file(&mut self, context: &Context) -> String {
        let dir = self.random.pick(&DIRS);
        let name = self.random.pick(&["new.txt", "new", "new.log", "0"]);
        let path = format!("{dir}/{name}");
        let file = self.random_file();
        self.files.insert(path.clone(), file);
        self.write(context, &path);
        format!("new {path}")
    }

    fn remove_file(&mut self, context: &Context) -> String {
        let path = self.any_path(true);
        self.files.remove(&path);
        fs::remove_file(context.join(&path)).unwrap();
        format!("removed {path}")
    }

    fn rename_file(&mut self, context: &Context) -> String {
        let old = self.any_path(true);
        let dir = self.random.pick(&DIRS);
        let new = format!("{dir}/moved");
        // A wildcard must not find a link that leads nowhere.
        if self.files[&old].is_link {
            return "nothing".to_owned();
        }
        let file = self.files.remove(&old).unwrap();
        fs::rename(context.join(&old), context.join(&new)).unwrap();
        self.files.insert(new.clone(), file);
        format!("{old} is now {new}")
    }

    fn touch_file(&mut self, context: &Context) -> String {
        let path = self.any_path(false);
        if !self.files[&path].is_link {
            let seconds = u64::try_from(self.random.below(1 << 30)).unwrap();
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            let file = File::open(context.join(&path)).unwrap();
            file.set_times(FileTimes::new().set_modified(time)).unwrap();
        }
        format!("touched {path}")
    }

    fn change_unused(&mut self, context: &Context) -> String {
        let path = self.random.pick(&["other", "ignored/other", "a/x.log"]);
        let content = self.random.pick(&CONTENTS);
        context.write(path, content);
        format!("unused {path}: {content:?}")
    }

    fn change_value(&mut self) -> String {
        let which = self.random.below(2);
        self.values[which] = self.random.below(3);
        format!("V{which}: {}", self.values[which])
    }

    fn edit_copy(&mut self) -> String {
        let new = self.random.below(FLAGS.len());
        self.edit_one(|what| match what {
            What::Copy { flags, .. } => *flags = new,
            What::Env { value } => *value = (*value + 1) % 3,
            What::CopyFrom { link, .. } => *link = !*link,
            _ => {}
        })
    }

    fn edit_run(&mut self) -> String {
        let new = self.random.below(PROGRAMS.len());
        self.edit_one(|what| {
            if let What::Run { program, .. } = what {
                *program = new;
            }
        })
    }

    fn edit_one(&mut self, edit: impl FnOnce(&mut What)) -> String {
        let stage = self.random.below(self.stages.len());
        let steps = &mut self.stages[stage].steps;
        let at = self.random.below(steps.len());
        let old = steps[at].text();
        edit(&mut steps[at].what);
        format!("{old} is now {}", steps[at].text())
    }

    /// Exchanges two steps of which the second does not read what the first makes.
    fn reorder(&mut self) -> String {
        let stage = self.random.below(self.stages.len());
        let steps = &mut self.stages[stage].steps;
        let at = self.random.below(steps.len() - 1);
        if steps[at + 1].reads(steps[at].number) {
            return "nothing".to_owned();
        }
        steps.swap(at, at + 1);
        format!("first {}", steps[at].text())
    }
}

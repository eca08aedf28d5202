//! Lists a bucket in the order of paths, whatever the order of the server: folder by folder. Each level is read whole,
//! only what is asked for is kept.
//!
//! All paths of a folder `a/` stand together between what sorts before `a/` and after it, so a folder is one entry of
//! the list of its parent until it is its turn. What is kept in memory is bounded by what is asked for.

use std::collections::BTreeMap;

use object_store::aws::AmazonS3;
use object_store::list::{PaginatedListOptions, PaginatedListStore};

use super::fault::fault_of;
use crate::backends::blobs::{BlobKey, BlobMeta};
use crate::backends::fault::PortFault;

/// Behind everything that is in a folder: no path has this character.
const END: &str = "\u{10FFFF}";

/// What is left to be listed, in order; the next one last.
enum Step {
    Object(String, u64),
    /// A folder, its name with a slash at its end, from after this path on.
    Folder(String, Option<String>),
}

/// The objects of `tenant` below `under` (empty, or with a slash at its end) with a path after `after`, at most `most`.
pub(super) async fn list(
    store: &AmazonS3,
    tenant: &str,
    under: &str,
    after: Option<String>,
    most: usize,
) -> Result<Vec<BlobMeta>, PortFault> {
    let mut found = Vec::new();
    let mut steps = vec![Step::Folder(under.to_owned(), after)];
    while let Some(step) = steps.pop() {
        if found.len() >= most {
            break;
        }
        match step {
            Step::Object(path, size) => {
                // What we could not have written is not ours.
                found.extend(BlobKey::new(tenant, &path).ok().map(|key| BlobMeta { key, size }));
            }
            Step::Folder(folder, after) => {
                let level = level(store, tenant, &folder, after.as_deref(), most).await?;
                if let Some(last) = level.cut_at {
                    steps.push(Step::Folder(folder, Some(last)));
                }
                steps.extend(level.entries.into_iter().rev().map(|(path, size)| match size {
                    Some(size) => Step::Object(path, size),
                    None => {
                        let after = after.clone().filter(|after| after.starts_with(&path));
                        Step::Folder(path, after)
                    }
                }));
            }
        }
    }
    Ok(found)
}

/// One level of a folder.
struct Level {
    /// Objects with their size, folders with none.
    entries: BTreeMap<String, Option<u64>>,
    /// Where it was cut, because more is there than was asked for.
    cut_at: Option<String>,
}

async fn level(
    store: &AmazonS3,
    tenant: &str,
    folder: &str,
    after: Option<&str>,
    most: usize,
) -> Result<Level, PortFault> {
    let prefix = format!("{tenant}/{folder}");
    let mut level = Level { entries: BTreeMap::new(), cut_at: None };
    let mut page_token = None;
    loop {
        let options = PaginatedListOptions {
            delimiter: Some("/".into()),
            page_token: page_token.take(),
            ..PaginatedListOptions::default()
        };
        let page = store.list_paginated(Some(&prefix), options).await.map_err(|error| fault_of(&error))?;
        let objects = page.result.objects.into_iter().map(|meta| (meta.location, Some(meta.size)));
        let folders = page.result.common_prefixes.into_iter().map(|folder| (folder, None));
        for (place, size) in objects.chain(folders) {
            let Some(path) = place.as_ref().strip_prefix(tenant).and_then(|path| path.strip_prefix('/'))
            else {
                continue;
            };
            let path = if size.is_some() { path.to_owned() } else { format!("{path}/") };
            if is_after(&path, size.is_none(), after) {
                level.keep(path, size, most);
            }
        }
        page_token = page.page_token;
        if page_token.is_none() {
            return Ok(level);
        }
    }
}

impl Level {
    /// Keeps the first `most` entries, and where the rest begins.
    fn keep(&mut self, path: String, size: Option<u64>, most: usize) {
        self.entries.insert(path, size);
        if self.entries.len() > most.max(1) {
            self.entries.pop_last();
            self.cut_at = self.entries.last_key_value().map(|(path, size)| match size {
                Some(_) => path.clone(),
                None => format!("{path}{END}"),
            });
        }
    }
}

/// Whether an object stands after `after`, or a folder may hold one that does.
fn is_after(path: &str, is_folder: bool, after: Option<&str>) -> bool {
    let holds_more = |after: &str| after.strip_prefix(path).is_some_and(|rest| rest != END);
    after.is_none_or(|after| path > after || (is_folder && holds_more(after)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_looked_into_where_it_may_hold_what_comes_after() {
        assert!(is_after("b/", true, Some("a/9")));
        assert!(is_after("b/", true, Some("b/1")), "the rest of it");
        assert!(!is_after("b/", true, Some("b0")), "'0' stands behind '/'");
        assert!(is_after("b/", true, Some("b-c")), "'-' stands before '/'");
        assert!(!is_after("b/", true, Some(&format!("b/{END}"))), "all of it is listed");
        assert!(is_after("b/", true, Some(&format!("b/c/{END}"))), "a part of it is");
        assert!(!is_after("b", false, Some("b")));
    }

    #[test]
    fn a_level_keeps_the_first_and_says_where_it_was_cut() {
        let mut level = Level { entries: BTreeMap::new(), cut_at: None };
        for (path, size) in [("c", Some(1)), ("b/", None), ("a", Some(1)), ("d", Some(1))] {
            level.keep(path.to_owned(), size, 2);
        }
        assert_eq!(level.entries.keys().collect::<Vec<_>>(), ["a", "b/"]);
        let cut = level.cut_at.unwrap();
        assert!(is_after("c", false, Some(&cut)) && !is_after("a", false, Some(&cut)));
    }
}

//! The files of a crate as a tree of modules, with the names that each holds.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use proc_macro2::TokenStream;
use quote::ToTokens as _;
use syn::spanned::Spanned as _;
use syn::{Attribute, Item, UseTree};

use super::room::File;

/// What a name in a module stands for.
#[derive(Debug, Clone)]
pub(super) enum Name {
    /// A module below.
    Module(usize),
    /// Something named elsewhere, by its path from here.
    Import(Vec<String>),
    /// Something written here.
    Here,
}

/// A module: a file, or a block of one.
#[derive(Debug, Default)]
pub(super) struct Module {
    pub(super) file: usize,
    pub(super) above: Option<usize>,
    pub(super) names: BTreeMap<String, Name>,
    /// Paths whose names are all imported.
    pub(super) globs: Vec<Vec<String>>,
    /// What is written here, without modules and imports.
    pub(super) code: TokenStream,
}

/// A library or program.
#[derive(Debug, Default)]
pub(super) struct Tree {
    pub(super) files: Vec<File>,
    /// The root first.
    pub(super) modules: Vec<Module>,
}

/// Reads the target whose first file is `first`.
pub(super) fn read(root: &Path, first: &Path) -> Result<Tree, String> {
    let mut tree = Tree::default();
    let folder = first.parent().unwrap_or(Path::new("")).to_path_buf();
    tree.file(root, first, &folder, &[], None)?;
    Ok(tree)
}

impl Tree {
    /// Takes up a file, whose modules lie in `folder`; the module's number.
    fn file(
        &mut self,
        root: &Path,
        path: &Path,
        folder: &Path,
        module: &[String],
        above: Option<usize>,
    ) -> Result<usize, String> {
        let place = root.join(path);
        let text = std::fs::read_to_string(&place).map_err(|error| format!("{}: {error}", path.display()))?;
        let parsed = syn::parse_file(&text).map_err(|error| format!("{}: {error}", path.display()))?;
        let tests: usize = parsed.items.iter().filter(|item| for_tests(attributes(item))).map(lines).sum();
        let lines = text.lines().count() - tests;
        self.files.push(File { path: path.to_path_buf(), module: module.to_vec(), lines });
        let file = self.files.len() - 1;
        self.module(root, file, folder, module, above, parsed.items)
    }

    fn module(
        &mut self,
        root: &Path,
        file: usize,
        folder: &Path,
        module: &[String],
        above: Option<usize>,
        items: Vec<Item>,
    ) -> Result<usize, String> {
        let own = self.modules.len();
        self.modules.push(Module { file, above, ..Module::default() });
        for item in items {
            if for_tests(attributes(&item)) {
                continue;
            }
            match item {
                Item::Mod(below) => {
                    let name = below.ident.to_string();
                    let names: Vec<String> = module.iter().cloned().chain([name.clone()]).collect();
                    let inside = folder.join(&name);
                    let number = match below.content {
                        Some((_, items)) => self.module(root, file, &inside, &names, Some(own), items)?,
                        None => {
                            let path = on_disk(root, folder, &below.attrs, &name)?;
                            self.file(root, &path, &inside, &names, Some(own))?
                        }
                    };
                    self.modules[own].names.insert(name, Name::Module(number));
                }
                Item::Use(import) => self.modules[own].import(&mut Vec::new(), import.tree),
                other => {
                    if let Some(name) = defined(&other) {
                        self.modules[own].add(name, Name::Here);
                    }
                    self.modules[own].code.extend(other.into_token_stream());
                }
            }
        }
        Ok(own)
    }
}

impl Module {
    fn import(&mut self, before: &mut Vec<String>, tree: UseTree) {
        let with = |before: &[String], name: String| {
            // `use a::{self}` names `a`.
            let own = (name != "self" || before.is_empty()).then_some(name);
            before.iter().cloned().chain(own).collect::<Vec<_>>()
        };
        match tree {
            UseTree::Path(path) => {
                before.push(path.ident.to_string());
                self.import(before, *path.tree);
                before.pop();
            }
            UseTree::Name(name) => {
                let path = with(before, name.ident.to_string());
                if let Some(last) = path.last().cloned() {
                    self.add(last, Name::Import(path));
                }
            }
            UseTree::Rename(rename) => {
                let path = with(before, rename.ident.to_string());
                // `as _` brings a trait's methods and no name.
                let name = match rename.rename.to_string().as_str() {
                    "_" => format!("_{}", self.names.len()),
                    name => name.to_owned(),
                };
                self.add(name, Name::Import(path));
            }
            UseTree::Glob(_) => self.globs.push(before.clone()),
            UseTree::Group(group) => group.items.into_iter().for_each(|tree| self.import(before, tree)),
        }
    }

    /// A function or type and a module may have the same name; the module leads on.
    fn add(&mut self, name: String, what: Name) {
        self.names.entry(name).or_insert(what);
    }
}

/// Whether something is compiled for tests alone.
pub(super) fn for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.meta.require_list().is_ok_and(|list| list.tokens.to_string() == "test")
    })
}

fn lines(item: &Item) -> usize {
    let span = item.span();
    span.end().line - span.start().line + 1
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

fn defined(item: &Item) -> Option<String> {
    let ident = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Macro(item) => item.ident.as_ref()?,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::Type(item) => &item.ident,
        Item::Union(item) => &item.ident,
        _ => return None,
    };
    Some(ident.to_string())
}

/// Where the module `name` of a file whose modules lie in `folder` is written.
fn on_disk(root: &Path, folder: &Path, attributes: &[Attribute], name: &str) -> Result<PathBuf, String> {
    let named = attributes.iter().find(|attribute| attribute.path().is_ident("path"));
    if let Some(named) = named {
        let value = named.meta.require_name_value().map_err(|error| error.to_string())?;
        let text = value.value.to_token_stream().to_string();
        return Ok(folder.join(text.trim_matches('"')));
    }
    let places = [folder.join(format!("{name}.rs")), folder.join(name).join("mod.rs")];
    let found = places.iter().find(|place| root.join(place).is_file()).cloned();
    found.ok_or_else(|| format!("{}: no such file", places[0].display()))
}

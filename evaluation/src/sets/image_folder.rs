//! Images of a folder by the names that data sets give them.

use std::collections::BTreeMap;

use blip2_store::Location;

use crate::job_error::{JobError, Result};
use crate::metrics::captions::coco::id_of_file;
use crate::row_id::RowId;

/// What files of images end in.
const ENDINGS: [&str; 9] = ["jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "jfif"];

/// The images below a folder.
pub(super) struct ImageFolder {
    root: Location,
    images: Vec<(String, Location)>,
    /// By path, by file name and by stem; a name that two have stands for none.
    names: BTreeMap<String, Option<usize>>,
    /// By the number behind the last `_`.
    numbers: BTreeMap<RowId, Option<usize>>,
}

impl ImageFolder {
    /// Lists a folder and all below it.
    pub(super) async fn open(root: Location) -> Result<Self> {
        let prefix = format!("{}/", root.path());
        let relative = |location: &Location| {
            let path = location.path().to_string();
            path.strip_prefix(&prefix).map(str::to_owned).unwrap_or(path)
        };
        let is_image = |path: &str| {
            let ending = path.rsplit_once('.').map(|(_, ending)| ending.to_ascii_lowercase());
            ending.is_some_and(|ending| ENDINGS.contains(&ending.as_str()))
        };
        let found =
            root.list().await?.into_iter().map(|object| (relative(&object.location), object.location));
        let images: Vec<_> = found.filter(|(path, _)| is_image(path)).collect();
        let (mut names, mut numbers) = (BTreeMap::new(), BTreeMap::new());
        for (place, (path, _)) in images.iter().enumerate() {
            let file = path.rsplit('/').next().unwrap_or(path);
            let stem = file.rsplit_once('.').map_or(file, |(stem, _)| stem);
            let mut known = vec![path.as_str(), file, stem];
            known.dedup();
            for name in known {
                // A path is told from a name that is another's by its own entry, which wins below.
                names.entry(name.to_owned()).and_modify(|found| *found = None).or_insert(Some(place));
            }
            numbers.entry(id_of_file(path)).and_modify(|found| *found = None).or_insert(Some(place));
        }
        for (place, (path, _)) in images.iter().enumerate() {
            names.insert(path.clone(), Some(place));
        }
        Ok(Self { root, images, names, numbers })
    }

    /// All images by their paths below the folder, in order.
    pub(super) fn all(&self) -> &[(String, Location)] {
        &self.images
    }

    /// The image that is called so: by path, file name, name without its ending, or by the number at its end.
    pub(super) fn find(&self, name: &str) -> Result<Location> {
        let file = name.rsplit('/').next().unwrap_or(name);
        let named = [name, file].into_iter().find_map(|name| self.names.get(name));
        let found = named.or_else(|| self.numbers.get(&RowId::from(name)));
        match found {
            Some(Some(place)) => Ok(self.images[*place].1.clone()),
            Some(None) => Err(self.missing(name, "is there more than once below")),
            None => Err(self.missing(name, "is not below")),
        }
    }

    fn missing(&self, name: &str, what: &str) -> JobError {
        let reason = format!("{what} {}; name the folder of the images with --images", self.root);
        JobError::Image { name: name.to_owned(), reason }
    }
}

"""Data sets, real and simulated: manifests, readers, images and batches, the world and what is rendered from it."""

from ..files import cache_dir
from .batches import identity_batches, integer_labels, random_batches, random_erasing, random_flip
from .camera import Camera, Place, make_camera
from .classification import (
    ImageFolder,
    MacroBench,
    check_classification,
    class_names,
    get_files,
    load_classification,
    nas_bench_macro,
    write_classification,
)
from .fetch import get_dataset
from .figure import Pose
from .histograms import colour_histogram_stripes
from .images import iter_image_batches, load_images, to_float, to_uint8
from .manifests import list_datasets, load_manifest
from .painter import Light, draw_person
from .person import Crowd, Person, make_person
from .person_search import check_person_search, load_person_search, render_person_search, write_cuhk_sysu, write_prw
from .readers import DatasetCheck, ReIDDataset, Sample, check_dataset, load_dataset
from .render import Crops, Shot, Visit, render_crop, render_crops, render_dataset, split_query
from .scenes import SceneSearch, SceneSet, draw_scene, load_scenes, load_vtest_scenes, render_scene
from .segmentation import check_segmentation, load_segmentation, load_voc, render_voc, segmentation_classes
from .sources import open_source
from .standins import SearchSet, TrainSet, cross_view_pairs, list_worlds, load_world, world_statistics
from .track_folders import (
    TrackDataset,
    Tracklet,
    check_track_dataset,
    load_track_dataset,
    read_track_folder,
    render_track_dataset,
    set_of_tracks,
)
from .track_videos import load_mot_tracks, load_vtest_tracks, read_mot
from .tracklets import (
    Noise,
    TrackSet,
    Truth,
    all_clips,
    flip_clips,
    load_tracks,
    rect_masks,
    restricted_random,
    truth_scores,
)
from .traffic import load_traffic, render_vehicle, render_veri, track_distances
from .vehicle import Vehicle, make_vehicle
from .vtest import VTest, check_vtest, load_vtest

__all__ = [
    "Camera",
    "Crops",
    "Crowd",
    "DatasetCheck",
    "ImageFolder",
    "Light",
    "MacroBench",
    "Noise",
    "Person",
    "Place",
    "Pose",
    "ReIDDataset",
    "Sample",
    "SceneSearch",
    "SceneSet",
    "SearchSet",
    "Shot",
    "TrackDataset",
    "TrackSet",
    "Tracklet",
    "TrainSet",
    "Truth",
    "VTest",
    "Vehicle",
    "Visit",
    "all_clips",
    "cache_dir",
    "check_classification",
    "check_dataset",
    "check_person_search",
    "check_segmentation",
    "check_track_dataset",
    "check_vtest",
    "class_names",
    "colour_histogram_stripes",
    "cross_view_pairs",
    "draw_person",
    "draw_scene",
    "flip_clips",
    "get_dataset",
    "get_files",
    "identity_batches",
    "integer_labels",
    "iter_image_batches",
    "list_datasets",
    "list_worlds",
    "load_classification",
    "load_dataset",
    "load_images",
    "load_manifest",
    "load_mot_tracks",
    "load_person_search",
    "load_scenes",
    "load_segmentation",
    "load_track_dataset",
    "load_tracks",
    "load_traffic",
    "load_voc",
    "load_vtest",
    "load_vtest_scenes",
    "load_vtest_tracks",
    "load_world",
    "make_camera",
    "make_person",
    "make_vehicle",
    "nas_bench_macro",
    "open_source",
    "random_batches",
    "random_erasing",
    "random_flip",
    "read_mot",
    "read_track_folder",
    "rect_masks",
    "render_crop",
    "render_crops",
    "render_dataset",
    "render_person_search",
    "render_scene",
    "render_track_dataset",
    "render_vehicle",
    "render_veri",
    "render_voc",
    "restricted_random",
    "segmentation_classes",
    "set_of_tracks",
    "split_query",
    "to_float",
    "to_uint8",
    "track_distances",
    "truth_scores",
    "world_statistics",
    "write_classification",
    "write_cuhk_sysu",
    "write_prw",
]

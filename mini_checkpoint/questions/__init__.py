"""Short clips drawn in code, and questions about them that need space and time to answer."""

from .clip_file import save_clip
from .questions import QUESTION_TYPES, Question, ask
from .render import object_map, render_clip, render_frame
from .scene import Scene, SceneObject, visible_objects
from .staging import make_scene
from .vocabulary import COLOURS, SHAPES, SIDE

__all__ = [
    "COLOURS",
    "QUESTION_TYPES",
    "SHAPES",
    "SIDE",
    "Question",
    "Scene",
    "SceneObject",
    "ask",
    "make_scene",
    "object_map",
    "render_clip",
    "render_frame",
    "save_clip",
    "visible_objects",
]

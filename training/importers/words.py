"""Words by which people name the columns of a log and the kinds of events: four languages."""

import unicodedata
from collections.abc import Mapping

# What a column is by its name, without accents, case and separators, and without a word of IDS.
_COLUMNS: Mapping[str, str] = {
    "user_id": "user users customer client member visitor account person shopper buyer reader "
    "listener viewer subscriber kunde kunden nutzer benutzer besucher mitglied kaeufer "
    "utilisateur visiteur acheteur usuario cliente visitante",
    "item_id": "item items product sku article artikel produkt ware movie film song track book "
    "isbn asin video content post page venue place poi store recipe game app course produit "
    "producto articulo pelicula buch titel",
    "time": "time timestamp ts datetime date when at createdat created eventtime eventdate "
    "unixtime boughtat orderedat viewedat happenedat occurredat purchasedat visitedat timeutc "
    "utctime localtime unixtimereview zeit zeitpunkt zeitstempel datum datumzeit uhrzeit heure "
    "horodatage fecha hora fechahora",
    "event_type": "eventtype eventname event action actiontype behavior behaviour activity "
    "interaction aktion aktionstyp ereignis ereignistyp aktivitaet evenement accion evento",
    "value": "rating ratings stars starrating bewertung sterne",
    "duration_s": "durations durationsec durationsecs durationseconds watchseconds dwellseconds "
    "listenseconds secondswatched dauers dauersekunden",
    "lat": "lat latitude breitengrad breite",
    "lon": "lon lng long longitude laengengrad laenge",
}
COLUMN_WORDS: Mapping[str, frozenset[str]] = {
    role: frozenset(words.split()) for role, words in _COLUMNS.items()
}
# These say little: such a column is taken only if all that it holds are kinds of events.
VAGUE_TYPE_WORDS = frozenset({"type", "kind", "verb"})
IDS = ("id", "ids", "nr", "no", "num", "number", "nummer", "code", "key", "ref", "uuid", "hash")

_TYPES: Mapping[str, str] = {
    "view": "viewed views pageview detailview productview visit visited seen look browse angesehen "
    "ansicht gesehen besucht vue vu visite visto vista",
    "click": "clicked clicks klick geklickt clic",
    "play": "played plays listen listened stream streamed watch watched gehoert abgespielt ecoute",
    "read": "reads opened gelesen lu leido",
    "cart": "addtocart addedtocart basket addtobasket warenkorb indenwarenkorb panier carrito",
    "purchase": "buy bought purchased purchases order ordered checkout transaction sale sold kauf "
    "gekauft kaufen bestellt bestellung achat achete compra comprado",
    "rating": "rate rated review reviewed bewertet bewertung",
    "check-in": "checkin checkedin",
    "like": "liked likes favorite favourite favorited fav wishlist gefaellt merkliste",
    "dislike": "disliked dislikes",
    "share": "shared shares geteilt",
}
TYPE_WORDS: Mapping[str, str] = {
    word: kind for kind, words in _TYPES.items() for word in (*words.split(), kind.replace("-", ""))
}


def plain(name: str) -> str:
    """Return a name without accents, case and separators.

    >>> plain("Kunden-Nr."), plain("Länge"), plain("boughtAt")
    ('kundennr', 'laenge', 'boughtat')
    """
    german = name.lower().translate(
        {ord("ä"): "ae", ord("ö"): "oe", ord("ü"): "ue", ord("ß"): "ss"}
    )
    bare = unicodedata.normalize("NFKD", german)
    return "".join(c for c in bare if c.isalnum() and c.isascii())


def names_of(role: str, name: str) -> int:
    """Return how well a name suits a role: 0 not, 1 by its word, 2 with `id` or `nr` behind it."""
    words, text = COLUMN_WORDS[role], plain(name)
    if role in ("user_id", "item_id"):
        for suffix in IDS:
            if text.endswith(suffix) and text.removesuffix(suffix) in words:
                return 2
    if role == "user_id" and text in ("uid", "userid", "email", "emailaddress"):
        return 2
    return 1 if text in words else 0

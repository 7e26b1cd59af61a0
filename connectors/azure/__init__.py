"""Microsoft Azure: blobs of storage accounts, Event Hubs, Azure SQL. Steps, fields and tests stand in README.md."""

import logging

from connectors.azure.audience import AZURE_BLOB_EXPORT_AUDIENCE_CSV, AZURE_BLOB_EXPORT_AUDIENCE_JSON
from connectors.azure.events import AZURE_BLOB_EXPORT_EVENTS
from connectors.azure.hub import AZURE_EVENTHUB
from connectors.azure.hub_export import AZURE_EVENTHUB_EXPORT
from connectors.azure.imports import AZURE_BLOB_IMPORT
from connectors.azure.sql import AZURE_SQL
from connectors.azure.sql_import import AZURE_SQL_IMPORT
from connectors.azure.storage import AZURE_STORAGE
from connectors.sdk.declare import Provider

# What goes wrong is raised, and told once; the SDKs' own lines have addresses in them, and those have signatures.
logging.getLogger("azure").setLevel(logging.CRITICAL)

PROVIDER = Provider(
    slug="azure",
    label="Microsoft Azure",
    description="Blobs of storage accounts, Event Hubs and Azure SQL databases.",
    jobs=(
        AZURE_BLOB_IMPORT,
        AZURE_BLOB_EXPORT_AUDIENCE_JSON,
        AZURE_BLOB_EXPORT_AUDIENCE_CSV,
        AZURE_BLOB_EXPORT_EVENTS,
        AZURE_SQL_IMPORT,
        AZURE_EVENTHUB_EXPORT,
    ),
    auths=(AZURE_STORAGE, AZURE_SQL, AZURE_EVENTHUB),
)

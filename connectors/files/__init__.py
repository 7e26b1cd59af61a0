"""Files in folders of the host that cohortd runs on: rows in, audiences, events and triggers out.

The model for every other store of files (Azure Blob, SFTP): what is said here in folders is said there in containers.
"""

from connectors.files.audience import FILES_EXPORT_AUDIENCE
from connectors.files.events import FILES_EXPORT_EVENTS
from connectors.files.imports import FILES_IMPORT
from connectors.files.triggers import FILES_EXPORT_TRIGGERS
from connectors.sdk.declare import Provider

PROVIDER = Provider(
    slug="files",
    label="Files",
    description="Folders of the host that cohortd runs on.",
    jobs=(FILES_IMPORT, FILES_EXPORT_AUDIENCE, FILES_EXPORT_EVENTS, FILES_EXPORT_TRIGGERS),
)

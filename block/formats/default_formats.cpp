#include "block/formats/default_formats.h"

#include "block/formats/blkdebug/blkdebug.h"
#include "block/formats/cloop/cloop.h"
#include "block/formats/cow/cow.h"
#include "block/formats/luks/luks_image.h"
#include "block/formats/null_co/null_co.h"
#include "block/formats/qcow/qcow.h"
#include "block/formats/qcow2/qcow2.h"
#include "block/formats/raw/raw.h"
#include "block/formats/vdi/vdi.h"
#include "block/formats/vhdx/vhdx.h"
#include "block/formats/vmdk/vmdk.h"
#include "block/formats/vpc/vpc.h"
#include "block/io/file_protocol.h"
#include "block/nbd/nbd_client.h"

namespace vmm::block {

FormatTable default_formats() {
    FormatTable table;
    table.add(raw_format());
    table.add(vhdx_format());
    table.add(vpc_format());
    table.add(cow_format());
    table.add(cloop_format());
    table.add(qcow_format());
    table.add(qcow2_format());
    table.add(vmdk_format());
    table.add(vdi_format());
    table.add(luks_format());
    table.add(file_protocol());
    table.add(host_device_protocol());
    table.add(host_cdrom_protocol());
    table.add(null_co_protocol());
    table.add(blkdebug_protocol());
    table.add(nbd::nbd_protocol());
    return table;
}

} // namespace vmm::block

// SPDX-License-Identifier: Apache-2.0
#include "tar_stream.hpp"

#include <optional>
#include <utility>

#include <erofs_oci/tar/writer.hpp>

namespace mount_oci {
namespace {

namespace tar = erofs_oci::tar;
using erofs_oci::erofs::FileType;
using erofs_oci::erofs::Inode;
using erofs_oci::erofs::Run;

std::string name_of(std::string const& path, bool directory) {
  if (path == "/") return "./";
  return path.substr(1) + (directory ? "/" : "");
}

/// Empty for what no tar can hold.
std::optional<tar::Type> type_of(Inode const& inode) {
  switch (erofs_oci::erofs::file_type(inode.mode())) {
    case FileType::regular: return tar::Type::regular;
    case FileType::directory: return tar::Type::directory;
    case FileType::symlink: return tar::Type::symlink;
    case FileType::char_device: return tar::Type::char_device;
    case FileType::block_device: return tar::Type::block_device;
    case FileType::fifo: return tar::Type::fifo;
    case FileType::socket:
    case FileType::unknown: break;
  }
  return std::nullopt;
}

class TarStream {
 public:
  TarStream(ImageReader const& reader, Output& output) : reader_(reader), output_(output) {}

  [[nodiscard]] Result<void> add(std::string const& path, Inode const& inode, tar::Type type) {
    EROFS_OCI_TRY_ASSIGN(auto entry, entry_of(path, inode, type), path);
    EROFS_OCI_TRY(put_header(entry));
    for (auto const& extent : entry.extents) {
      EROFS_OCI_TRY(put_data(inode, extent), path);
    }
    return output_.put(std::string(tar::padding(tar::stored_size(entry)), '\0'));
  }

  [[nodiscard]] Result<void> add_link(PlannedFile const& link) {
    tar::Entry entry;
    entry.type = tar::Type::hard_link;
    entry.path = name_of(link.path, false);
    entry.link = name_of(link.link_to, false);
    return put_header(entry);
  }

  [[nodiscard]] Result<void> end() { return output_.put(std::string(tar::end_size, '\0')); }

 private:
  Result<tar::Entry> entry_of(std::string const& path, Inode const& inode, tar::Type type) {
    EROFS_OCI_TRY_ASSIGN(auto attributes, attributes_of(reader_, inode));
    tar::Entry entry;
    entry.type = type;
    entry.path = name_of(path, inode.is_directory());
    entry.mode = attributes.mode & 07777u;
    entry.uid = attributes.uid;
    entry.gid = attributes.gid;
    entry.mtime = {attributes.mtime.seconds, attributes.mtime.nanoseconds};
    for (auto& [name, value] : attributes.xattrs) {
      entry.xattrs.push_back({std::move(name), std::move(value)});
    }
    if (inode.is_symlink()) {
      EROFS_OCI_TRY_ASSIGN(entry.link, reader_.read_link(inode));
    }
    entry.dev_major = inode.device().major;
    entry.dev_minor = inode.device().minor;
    if (!inode.is_regular()) return entry;
    entry.size = inode.size();
    EROFS_OCI_TRY(reader_.runs(inode, 0, inode.size(), [&](Run const& run) -> Result<bool> {
      if (run.place) entry.extents.push_back({run.file_offset, 0, run.length});
      return true;
    }));
    return entry;
  }

  Result<void> put_header(tar::Entry const& entry) {
    EROFS_OCI_TRY_ASSIGN(auto const header, tar::encode_header(entry));
    return output_.put(erofs_oci::as_text(header));
  }

  Result<void> put_data(Inode const& inode, tar::Extent const& extent) {
    Result<void> written;
    auto const ok = reader_.stream_file(inode, extent.file_offset, extent.length, [&](auto piece) {
      written = output_.put(erofs_oci::as_text(piece));
      return written.has_value();
    });
    return written ? ok : written;
  }

  ImageReader const& reader_;
  Output& output_;
};

}  // namespace

Result<Attributes> attributes_of(ImageReader const& reader, Inode const& inode) {
  EROFS_OCI_TRY_ASSIGN(auto xattrs, reader.xattrs(inode));
  return Attributes{inode.mode(), inode.record.uid, inode.record.gid, inode.mtime,
                    std::move(xattrs)};
}

Result<void> write_tar(ImageReader const& reader, ExtractPlan const& plan, Output& output,
                       std::function<void(std::string const& text)> const& warn) {
  TarStream stream(reader, output);
  for (auto const& file : plan.files) {
    auto const type = type_of(file.inode);
    if (!type) {
      warn(file.path + ": no tar can hold a " + std::string(type_text(file.inode.mode())) +
           ": left out");
      continue;
    }
    EROFS_OCI_TRY(file.link_to.empty() ? stream.add(file.path, file.inode, *type)
                                       : stream.add_link(file));
  }
  return stream.end();
}

}  // namespace mount_oci
